package nettest

import (
	"net/netip"
	"slices"

	"nodeagent/internal/net"
)

// Told is what a table says of packets: an oracle for tables that come of any objects,
// however odd. That a table says what the objects ask for is Cluster's to judge.
type Told struct {
	Table     *net.Table
	NodeAddrs []netip.Addr
	Pods      []netip.Prefix
}

// Ask says what becomes of a connection from an address to another.
func (o Told) Ask(from netip.Addr, to net.Address) Fate {
	if e := o.Table.Entries[to]; e != nil {
		f := fateOf(e, e.ForClusterIP())
		f.Masked = f.What == "served" && !o.pod(from) && len(o.Pods) > 0
		return f
	}
	if e, x := o.front(to); e != nil {
		return o.askFront(e, x, from)
	}
	if slices.Contains(o.Table.ClusterIPs(), to.IP) {
		return Fate{What: "refused"}
	}
	if slices.ContainsFunc(o.Table.Ranges(), func(p netip.Prefix) bool { return p.Contains(to.IP) }) {
		return Fate{What: "refused"}
	}
	return Fate{}
}

func (o Told) pod(a netip.Addr) bool {
	return slices.ContainsFunc(o.Pods, func(p netip.Prefix) bool { return p.Contains(a) })
}

// front is what serves an address that is no cluster IP; one that is written out before
// a port of the node.
func (o Told) front(to net.Address) (*net.Entry, net.Front) {
	names := []net.Address{to}
	if slices.Contains(o.NodeAddrs, to.IP) {
		names = append(names, net.Address{IP: anyLike(to.IP), Port: to.Port, Proto: to.Proto})
	}
	for _, name := range names {
		for _, e := range o.Table.Entries {
			for _, x := range e.Fronts {
				if x.Address == name {
					return e, x
				}
			}
		}
	}
	return nil, net.Front{}
}

// nobody tells that no service asked for the address.
func (o Told) nobody(to net.Address) bool {
	e, _ := o.front(to)
	return e == nil && o.Table.Entries[to] == nil
}

func anyLike(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func (o Told) askFront(e *net.Entry, x net.Front, from netip.Addr) Fate {
	if x.Kind == net.Balancer && e.Ranged && !slices.ContainsFunc(e.Ranges, func(p netip.Prefix) bool { return p.Contains(from) }) {
		return Fate{What: "dropped"}
	}
	own := slices.Contains(o.NodeAddrs, from)
	v := e.ForOutside()
	if own || o.pod(from) {
		v = e.ForInside()
	}
	f := fateOf(e, v)
	f.Masked = f.What == "served" && (own || !e.LocalOutside)
	return f
}

func fateOf(e *net.Entry, v net.Verdict) Fate {
	switch v {
	case net.Refuse:
		return Fate{What: "refused"}
	case net.Drop:
		return Fate{What: "dropped"}
	case net.ToLocal:
		return Fate{What: "served", To: e.Local}
	}
	return Fate{What: "served", To: e.Cluster}
}
