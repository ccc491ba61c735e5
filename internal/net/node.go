package net

import "net/netip"

// Node is what the table depends on besides Services and EndpointSlices.
type Node struct {
	// Name decides which endpoints are this node's own. It never changes.
	Name string
	// Zone is the value of the label topology.kubernetes.io/zone.
	Zone string
	// Addrs are the node's own addresses, the primary ones first.
	Addrs []netip.Addr
}

func (n Node) has(a netip.Addr) bool {
	for _, x := range n.Addrs {
		if x == a {
			return true
		}
	}
	return false
}

func (n Node) equal(o Node) bool {
	if n.Name != o.Name || n.Zone != o.Zone || len(n.Addrs) != len(o.Addrs) {
		return false
	}
	for i := range n.Addrs {
		if n.Addrs[i] != o.Addrs[i] {
			return false
		}
	}
	return true
}
