package poddir

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/mkdir"
	"nodeagent/internal/pod/etc"
)

// Names of the files within a pod's directory. etc-hosts is where kubelet has it.
const (
	fileHosts      = "etc-hosts"
	fileHostname   = "etc-hostname"
	fileResolvConf = "etc-resolv.conf"
)

// Hostname is what the pod's UTS namespace is called; "" on the host network.
func (d *Dirs) Hostname(p *corev1.Pod) (string, error) {
	name, _, err := etc.Hostname(p, d.cfg.DNS().ClusterDomain)
	if err != nil {
		return "", fmt.Errorf("name the pod's host: %w", err)
	}
	return name.Kernel, nil
}

// Etc writes hosts, hostname and resolv.conf of the pod, where they are not
// what they should be, and returns the mounts that bring them into a container.
func (d *Dirs) Etc(p *corev1.Pod, addrs []netip.Addr) ([]*runtimeapi.Mount, error) {
	dns := d.cfg.DNS()
	name, _, err := etc.Hostname(p, dns.ClusterDomain)
	if err != nil {
		return nil, fmt.Errorf("name the pod's host: %w", err)
	}
	var ips []string
	for _, a := range addrs {
		ips = append(ips, a.String())
	}
	var nodeHosts []byte
	if p.Spec.HostNetwork {
		if nodeHosts, err = os.ReadFile(d.cfg.NodeHosts); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the node's hosts file: %w", err)
		}
	}
	resolv, _ := etc.Resolve(p, dns)
	var mounts []*runtimeapi.Mount
	for _, f := range []struct {
		name, in string
		text     []byte
	}{
		{fileHosts, etc.HostsPath, etc.Hosts(p, name, ips, nodeHosts)},
		{fileHostname, "/etc/hostname", name.File()},
		{fileResolvConf, "/etc/resolv.conf", resolv.Text()},
	} {
		if f.text == nil {
			continue
		}
		path := filepath.Join(d.pod(p.UID), f.name)
		if err := writeInPlace(path, f.text); err != nil {
			return nil, fmt.Errorf("write the pod's %s: %w", f.in, err)
		}
		mounts = append(mounts, &runtimeapi.Mount{ContainerPath: f.in, HostPath: path})
	}
	return mounts, nil
}

// writeInPlace keeps the inode, since it may be mounted in a running container;
// a file that says the same already is left alone.
func writeInPlace(path string, text []byte) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == string(text) {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Chmod(0o644), f.Close())
}

// terminationLog is the file of one run of a container.
func (d *Dirs) terminationLog(uid types.UID, container string, attempt uint32) string {
	return filepath.Join(d.pod(uid), "containers", container, strconv.FormatUint(uint64(attempt), 10))
}

// TerminationLog makes the file that the container may leave a message in. It
// may be written by any user, as kubelet has it.
func (d *Dirs) TerminationLog(p *corev1.Pod, container string, attempt uint32) (string, error) {
	if err := plain(container); err != nil {
		return "", err
	}
	path := d.terminationLog(p.UID, container, attempt)
	if err := mkdir.All(filepath.Dir(path), 0o750); err != nil {
		return "", fmt.Errorf("make the directory of termination messages: %w", err)
	}
	d.forgetMessages(filepath.Dir(path), attempt)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return "", fmt.Errorf("make the termination message's file: %w", err)
	}
	if err := errors.Join(f.Chmod(0o666), f.Close()); err != nil {
		return "", fmt.Errorf("make the termination message's file: %w", err)
	}
	return path, nil
}

// forgetMessages removes the files of runs that nobody asks about any more: all
// but the last one before this. Else a container that crashes for weeks fills
// the disk. What cannot be removed goes with the pod.
func (d *Dirs) forgetMessages(dir string, attempt uint32) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if n, err := strconv.ParseUint(e.Name(), 10, 32); err == nil && n+1 < uint64(attempt) {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
