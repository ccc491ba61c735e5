// Package etc owns the text of the three files under /etc that a pod gets from
// its node and not from its image: /etc/hosts, /etc/resolv.conf and
// /etc/hostname (with the name that the kernel is told).
//
// Every function is pure: the node's own files come in as bytes, the result is
// bytes and a list of warnings for the pod's events. The package never opens a
// file, never looks at the clock and never asks the kernel. All functions may be
// called from any goroutine; none keeps or changes its arguments.
//
// What the text means is kubelet's documented behaviour (1.36), which the
// applications inside pods already rely on. Where kubelet's answer depends on
// the order of a Go map (resolver options), this package has a fixed order, so
// that a file which did not change is never rewritten.
package etc

// Warning is something the pod's owner should read: the pod runs, but not with
// exactly what was asked for.
type Warning struct {
	Reason  string // event reason, kubelet's word where kubelet has one
	Message string
}

// Reasons of warnings.
const (
	ReasonMissingClusterDNS = "MissingClusterDNS"
	ReasonDNSConfigForming  = "DNSConfigForming"
	ReasonHostnameTruncated = "HostnameTruncated"
)
