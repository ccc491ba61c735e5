package net

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Proto is a transport protocol by its IP number.
type Proto uint8

// The protocols that a Service can have.
const (
	TCP  Proto = 6
	UDP  Proto = 17
	SCTP Proto = 132
)

// String returns the name as the API writes it.
func (p Proto) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case SCTP:
		return "SCTP"
	}
	return "protocol " + strconv.Itoa(int(p))
}

// protoOf knows an empty protocol as TCP, the API's default.
func protoOf(p corev1.Protocol) (Proto, bool) {
	switch p {
	case corev1.ProtocolTCP, "":
		return TCP, true
	case corev1.ProtocolUDP:
		return UDP, true
	case corev1.ProtocolSCTP:
		return SCTP, true
	}
	return 0, false
}

// Key is the name of a Service or an EndpointSlice.
type Key struct{ Namespace, Name string }

func (k Key) String() string { return k.Namespace + "/" + k.Name }

func (k Key) compare(o Key) int {
	if c := strings.Compare(k.Namespace, o.Namespace); c != 0 {
		return c
	}
	return strings.Compare(k.Name, o.Name)
}

// Address is what a client calls. The IP of a node port is the unspecified
// address of its family: which addresses of the node serve node ports is the
// business of whoever programs them.
type Address struct {
	IP    netip.Addr
	Port  uint16
	Proto Proto
}

func (a Address) String() string {
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(a.IP, a.Port), a.Proto)
}

// ParseAddress reads what String prints.
func ParseAddress(s string) (Address, error) {
	at, name, _ := strings.Cut(s, "/")
	a, err := netip.ParseAddrPort(at)
	p, ok := protoOf(corev1.Protocol(name))
	if err != nil || !ok || name == "" {
		return Address{}, fmt.Errorf("%q is no address, port and protocol", s)
	}
	return Address{a.Addr(), a.Port(), p}, nil
}

// NodePort tells whether a stands for a port of the node.
func (a Address) NodePort() bool { return a.IP.IsUnspecified() }

func (a Address) compare(o Address) int {
	if c := netip.AddrPortFrom(a.IP, a.Port).Compare(netip.AddrPortFrom(o.IP, o.Port)); c != 0 {
		return c
	}
	return int(a.Proto) - int(o.Proto)
}

// Family is 4 or 6.
type Family uint8

func familyOf(a netip.Addr) Family {
	if a.Is4() {
		return 4
	}
	return 6
}

func anyAddress(f Family) netip.Addr {
	if f == 4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// parseIP reads an address as the API does: leading zeros in a part of an IPv4
// address are no octal number, since old objects have them; an IPv4 address in
// IPv6 form is the IPv4 address. An address with a zone is none.
func parseIP(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil && !strings.Contains(s, ":") {
		parts := strings.Split(s, ".")
		for i, p := range parts {
			if t := strings.TrimLeft(p, "0"); t != "" {
				parts[i] = t
			} else if p != "" {
				parts[i] = "0"
			}
		}
		a, err = netip.ParseAddr(strings.Join(parts, "."))
	}
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

// special says why no service traffic may be led to or taken from an address,
// or "". An endpoint at one of these would reach the node's own loopback, the
// cloud's metadata server or a whole link (CVE-2020-8555 and its kin).
func special(a netip.Addr) string {
	switch {
	case !a.IsValid():
		return "is not an IP address"
	case a.IsUnspecified():
		return "is the unspecified address"
	case a.IsLoopback():
		return "is a loopback address"
	case a.IsLinkLocalUnicast():
		return "is a link-local address"
	case a.IsMulticast():
		return "is a multicast address"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "is the broadcast address"
	}
	return ""
}
