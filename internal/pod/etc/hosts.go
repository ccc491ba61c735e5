package etc

import (
	"bytes"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// HostsPath is where a container looks for its hosts file.
const HostsPath = "/etc/hosts"

// Kubelet's first lines, byte for byte: software tells a managed file by them.
const (
	hostsHeader     = "# Kubernetes-managed hosts file.\n"
	hostsHeaderNode = "# Kubernetes-managed hosts file (host network).\n"
)

// Hosts is the text of a pod's /etc/hosts. A pod with a network of its own gets
// loopback, the usual IPv6 names and one line for each of its addresses; a pod
// on the host network gets nodeHosts, the node's file as it is now. Host aliases
// come last in both.
//
// An alias whose text could start another line is left out: validation refuses
// such a pod, and this file is no second way in.
func Hosts(pod *corev1.Pod, name Name, podIPs []string, nodeHosts []byte) []byte {
	var b bytes.Buffer
	if pod.Spec.HostNetwork {
		b.WriteString(hostsHeaderNode)
		b.Write(nodeHosts)
	} else {
		b.WriteString(hostsHeader)
		b.WriteString("127.0.0.1\tlocalhost\n" +
			"::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::0\tip6-localnet\n" +
			"fe00::0\tip6-mcastprefix\n" +
			"fe00::1\tip6-allnodes\n" +
			"fe00::2\tip6-allrouters\n")
		for _, ip := range podIPs {
			b.WriteString(ip + "\t")
			if name.Domain != "" {
				b.WriteString(name.FQDN() + "\t")
			}
			b.WriteString(name.Short + "\n")
		}
	}
	writeAliases(&b, pod.Spec.HostAliases)
	return b.Bytes()
}

func writeAliases(b *bytes.Buffer, aliases []corev1.HostAlias) {
	if len(aliases) == 0 {
		return
	}
	b.WriteString("\n# Entries added by HostAliases.\n")
	for _, a := range aliases {
		line := a.IP + "\t" + strings.Join(a.Hostnames, "\t")
		if breaksLine(line) {
			continue
		}
		b.WriteString(line + "\n")
	}
}

// OwnHosts says that the container mounts something of its own at /etc/hosts, so
// that the managed file must not be mounted over it.
func OwnHosts(c *corev1.Container) bool {
	for i := range c.VolumeMounts {
		if path.Clean(c.VolumeMounts[i].MountPath) == HostsPath {
			return true
		}
	}
	return false
}

// breaksLine says that s cannot stand on one line of a text file: it holds a
// control character other than the tab.
func breaksLine(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool {
		return (r < 0x20 && r != '\t') || r == 0x7f
	})
}
