package podnet

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// port is a PortMapping that was checked.
type port struct {
	Proto     uint8      `json:"proto"`
	HostIP    netip.Addr `json:"hostIP,omitzero"` // zero: every address of both families
	HostPort  uint16     `json:"hostPort"`
	Container uint16     `json:"containerPort"`
}

// binding is a port with the address that it leads to: one element of a map of
// the table.
type binding struct {
	port
	Pod netip.Addr
}

func (p port) check() error {
	if p.HostPort == 0 || p.Container == 0 {
		return fmt.Errorf("publish port %d on host port %d: not between 1 and 65535", p.Container, p.HostPort)
	}
	switch p.Proto {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP:
	default:
		return fmt.Errorf("publish host port %d: protocol %d is not tcp, udp or sctp", p.HostPort, p.Proto)
	}
	return nil
}

func (p port) String() string {
	host := "*"
	if p.HostIP.IsValid() {
		host = p.HostIP.String()
	}
	return fmt.Sprintf("%s %s:%d", protoName(p.Proto), host, p.HostPort)
}

func protoName(p uint8) string {
	switch p {
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_SCTP:
		return "sctp"
	}
	return "tcp"
}

// ports checks the mappings of a request. Those without a host port ask for
// nothing.
func (r *Request) ports() ([]port, error) {
	var out []port
	for _, m := range r.Ports {
		if m.HostPort == 0 {
			continue
		}
		p, err := m.parse()
		if err != nil {
			return nil, err
		}
		for _, o := range out {
			if o.clashes(p) {
				return nil, fmt.Errorf("publish %s: the pod asks for it twice", p)
			}
		}
		out = append(out, p)
	}
	return out, nil
}

func (m PortMapping) parse() (port, error) {
	var p port
	switch strings.ToUpper(m.Protocol) {
	case "", "TCP":
		p.Proto = unix.IPPROTO_TCP
	case "UDP":
		p.Proto = unix.IPPROTO_UDP
	case "SCTP":
		p.Proto = unix.IPPROTO_SCTP
	default:
		return p, fmt.Errorf("publish host port %d: protocol %q is not TCP, UDP or SCTP", m.HostPort, m.Protocol)
	}
	if m.HostPort < 1 || m.HostPort > 65535 || m.ContainerPort < 1 || m.ContainerPort > 65535 {
		return p, fmt.Errorf("publish port %d on host port %d: not between 1 and 65535", m.ContainerPort, m.HostPort)
	}
	p.HostPort, p.Container = uint16(m.HostPort), uint16(m.ContainerPort)
	if m.HostIP == "" {
		return p, nil
	}
	a, err := netip.ParseAddr(m.HostIP)
	if err != nil || a.Zone() != "" {
		return p, fmt.Errorf("publish host port %d: host address %q is not an IP address", m.HostPort, m.HostIP)
	}
	if a = a.Unmap(); a.IsMulticast() {
		return p, fmt.Errorf("publish host port %d: host address %s cannot be served", m.HostPort, a)
	}
	p.HostIP = a
	return p, p.check()
}

// clashes tells whether some packet could be meant for both, as the scheduler
// and kubelet's admission judge it: a wildcard meets every address.
func (p port) clashes(o port) bool {
	if p.Proto != o.Proto || p.HostPort != o.HostPort {
		return false
	}
	wild := func(a netip.Addr) bool { return !a.IsValid() || a.IsUnspecified() }
	sameFamily := !p.HostIP.IsValid() || !o.HostIP.IsValid() || p.HostIP.Is4() == o.HostIP.Is4()
	return sameFamily && (p.HostIP == o.HostIP || wild(p.HostIP) || wild(o.HostIP))
}

// bindings returns the map elements that ports of a pod with addrs need.
func bindings(ports []port, addrs []netip.Addr) []binding {
	var out []binding
	for _, p := range ports {
		for _, a := range addrs {
			if p.HostIP.IsValid() && p.HostIP.Is4() != a.Is4() {
				continue
			}
			b := binding{port: p, Pod: a}
			if p.HostIP.IsUnspecified() {
				b.HostIP = netip.Addr{}
			}
			out = append(out, b)
		}
	}
	return out
}
