package etc

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Limits of a pod's resolver configuration: pkg/apis/core/validation of
// Kubernetes. A longer search domain makes glibc 2.28 abort.
const (
	maxServers     = 3
	maxSearches    = 32
	maxSearchChars = 2048
)

// DNS is what the node knows about names.
type DNS struct {
	ClusterDNS    []string // addresses of the cluster's DNS service; may be empty
	ClusterDomain string   // for example cluster.local; "" where there is none
	Node          ResolvConf
	// NoNodeFile says that the operator set resolvConf to "": pods that would
	// inherit the node's resolver get a name server on loopback instead.
	NoNodeFile bool
	NodeIPs    []string // only their family matters, with NoNodeFile
}

// Resolve decides a pod's resolver configuration from its dnsPolicy, its
// dnsConfig and the node, as kubelet does (pkg/kubelet/network/dns):
//
//   - ClusterFirst, not on the host network, and ClusterFirstWithHostNet: the
//     cluster's servers, "ns.svc.domain svc.domain domain" before the node's
//     search list, ndots:5. Without a cluster DNS it falls back to Default with a
//     MissingClusterDNS warning.
//   - ClusterFirst on the host network, and Default: what the node has.
//   - None: nothing but dnsConfig.
//
// dnsConfig is added to the result; then the limits of 3 servers, 32 search
// domains and 2048 characters of them hold, each cut with a DNSConfigForming
// warning. A policy that does not exist counts as ClusterFirst. The result shares
// no memory with its inputs.
func Resolve(pod *corev1.Pod, dns DNS) (ResolvConf, []Warning) {
	var warnings []Warning
	r := ResolvConf{}
	switch policy := effectivePolicy(pod); policy {
	case corev1.DNSNone:
	case corev1.DNSDefault:
		r = fromNode(dns)
	default:
		if len(dns.ClusterDNS) > 0 {
			r = fromCluster(pod.Namespace, dns)
			break
		}
		warnings = append(warnings, Warning{
			Reason:  ReasonMissingClusterDNS,
			Message: fmt.Sprintf("the node has no cluster DNS address configured (clusterDNS): dnsPolicy %q falls back to %q", policy, corev1.DNSDefault),
		})
		r = fromNode(dns)
	}
	if c := pod.Spec.DNSConfig; c != nil {
		var w []Warning
		r, w = add(r, c)
		warnings = append(warnings, w...)
	}
	r, w := limit(r)
	return r, append(warnings, w...)
}

func effectivePolicy(pod *corev1.Pod) corev1.DNSPolicy {
	switch p := pod.Spec.DNSPolicy; {
	case p == corev1.DNSNone, p == corev1.DNSDefault, p == corev1.DNSClusterFirstWithHostNet:
		return p
	case p == corev1.DNSClusterFirst && pod.Spec.HostNetwork:
		return corev1.DNSDefault
	default:
		return corev1.DNSClusterFirst
	}
}

func fromCluster(namespace string, dns DNS) ResolvConf {
	r := ResolvConf{Servers: slices.Clone(dns.ClusterDNS), Options: []string{"ndots:5"}}
	if d := dns.ClusterDomain; d != "" {
		r.Searches = []string{namespace + ".svc." + d, "svc." + d, d}
	}
	r.Searches = unique(r.Searches, nodeConf(dns).Searches)
	return r
}

func fromNode(dns DNS) ResolvConf {
	r := nodeConf(dns)
	if !dns.NoNodeFile {
		return r
	}
	for _, s := range dns.NodeIPs {
		if ip, err := netip.ParseAddr(s); err == nil && ip.Unmap().Is6() {
			r.Servers = append(r.Servers, "::1")
		} else {
			r.Servers = append(r.Servers, "127.0.0.1")
		}
	}
	if len(r.Servers) == 0 {
		r.Servers = []string{"127.0.0.1"}
	}
	r.Searches = []string{"."}
	return r
}

func nodeConf(dns DNS) ResolvConf {
	if dns.NoNodeFile {
		return ResolvConf{}
	}
	return ResolvConf{
		Servers:  slices.Clone(dns.Node.Servers),
		Searches: slices.Clone(dns.Node.Searches),
		Options:  slices.Clone(dns.Node.Options),
	}
}

// add merges the pod's own dnsConfig. The API server checks the servers and the
// search domains but lets any text be an option, so what would start a new line
// of the file is left out.
func add(r ResolvConf, c *corev1.PodDNSConfig) (ResolvConf, []Warning) {
	var options []string
	for _, o := range c.Options {
		text := o.Name
		if o.Value != nil && *o.Value != "" {
			text += ":" + *o.Value
		}
		options = append(options, text)
	}
	dropped := 0
	keep := func(in []string) []string {
		return slices.DeleteFunc(slices.Clone(in), func(s string) bool {
			bad := breaksLine(s)
			if bad {
				dropped++
			}
			return bad
		})
	}
	r.Servers = unique(r.Servers, keep(c.Nameservers))
	r.Searches = unique(r.Searches, keep(c.Searches))
	r.Options = mergeOptions(r.Options, keep(options))
	if dropped == 0 {
		return r, nil
	}
	return r, []Warning{{
		Reason:  ReasonDNSConfigForming,
		Message: fmt.Sprintf("%d entries of spec.dnsConfig hold control characters and have been omitted", dropped),
	}}
}

func limit(r ResolvConf) (ResolvConf, []Warning) {
	var warnings []Warning
	if len(r.Servers) > maxServers {
		r.Servers = r.Servers[:maxServers]
		warnings = append(warnings, Warning{
			Reason:  ReasonDNSConfigForming,
			Message: "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: " + strings.Join(r.Servers, " "),
		})
	}
	before := len(r.Searches)
	r.Searches = r.Searches[:min(before, maxSearches)]
	r.Searches = slices.DeleteFunc(r.Searches, func(s string) bool {
		return len(s) > validation.DNS1123SubdomainMaxLength
	})
	for len(strings.Join(r.Searches, " ")) > maxSearchChars {
		r.Searches = r.Searches[:len(r.Searches)-1]
	}
	if len(r.Searches) < before {
		warnings = append(warnings, Warning{
			Reason:  ReasonDNSConfigForming,
			Message: "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: " + strings.Join(r.Searches, " "),
		})
	}
	return r, warnings
}

// unique appends two lists without repeating a word.
func unique(a, b []string) []string {
	var out []string
	seen := make(map[string]bool, len(a)+len(b))
	for _, s := range slices.Concat(a, b) {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}
