package net

import (
	"net/netip"
	"slices"
)

// candidate is an endpoint of one port of a service, gathered from its slices.
type candidate struct {
	endpoint
	port uint16
}

// gather returns what the slices hold for one port and family, sorted, each
// address and port once. Slices may contradict each other while an endpoint
// moves from one to another, or when an address is used again before its last
// pod is forgotten: the one that is most able to serve counts, and of equal
// ones that of the first slice by name, whatever the order in which they came.
func gather(in []*slice, name string, proto Proto, f Family) []candidate {
	var out []candidate
	for _, s := range in {
		for _, p := range s.ports {
			if p.name != name || p.proto != proto {
				continue
			}
			for _, e := range s.ends {
				if familyOf(e.addr) == f {
					out = append(out, candidate{e, p.port})
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b candidate) int {
		if c := a.addr.Compare(b.addr); c != 0 {
			return c
		}
		if a.port != b.port {
			return int(a.port) - int(b.port)
		}
		return b.rank() - a.rank()
	})
	return slices.CompactFunc(out, func(a, b candidate) bool { return a.addr == b.addr && a.port == b.port })
}

func (c candidate) rank() int {
	switch {
	case c.is.has(ready) && !c.is.has(terminating):
		return 3
	case c.is.has(ready):
		return 2
	case c.is.draining():
		return 1
	}
	return 0
}

// scope narrows the ready endpoints by the hints of topology.
type scope uint8

const (
	everywhere scope = iota
	sameNode
	sameZone
)

// scopeOf follows hints only if all ready endpoints have them and at least one
// is meant for here: else this node would have none, or those without hints
// would have no clients. Hints for nodes go before hints for zones.
func scopeOf(cs []candidate, zone string) scope {
	some, allNodes, ourNode, allZones, ourZone := false, true, false, true, false
	for _, c := range cs {
		if !c.is.has(ready) {
			continue
		}
		some = true
		allNodes = allNodes && c.is.has(nodeHints)
		ourNode = ourNode || c.is.has(hintsUs)
		has, here := c.hinted(zone)
		allZones = allZones && has
		ourZone = ourZone || (here && zone != "")
	}
	switch {
	case some && allNodes && ourNode:
		return sameNode
	case some && allZones && ourZone:
		return sameZone
	}
	return everywhere
}

// choice is what a service's port leads to.
type choice struct {
	cluster, local []netip.AddrPort
	serving        []netip.AddrPort // all that answer
	here           []netip.Addr     // of these, the addresses on this node
	any            bool             // somebody in the cluster could answer
}

// choose follows kube-proxy: ready endpoints, else those that drain but still
// serve, for each policy by itself; hints bear on policy Cluster only.
func choose(cs []candidate, zone string, wantLocal, wantServing bool) choice {
	var c choice
	sc := scopeOf(cs, zone)
	c.cluster = pick(cs, func(e candidate) bool {
		if !e.is.has(ready) {
			return false
		}
		_, here := e.hinted(zone)
		return sc == everywhere || (sc == sameNode && e.is.has(hintsUs)) || (sc == sameZone && here)
	})
	if len(c.cluster) == 0 {
		c.cluster = pick(cs, func(e candidate) bool { return e.is.draining() })
	}
	if wantLocal {
		c.local = pick(cs, func(e candidate) bool { return e.is.has(local | ready) })
		if len(c.local) == 0 {
			c.local = pick(cs, func(e candidate) bool { return e.is.has(local) && e.is.draining() })
		}
		if slices.Equal(c.local, c.cluster) {
			c.local = c.cluster // one array for both
		}
	}
	if wantServing {
		c.serving = pick(cs, func(e candidate) bool { return e.is.has(ready) || e.is.has(serving) })
		if slices.Equal(c.serving, c.cluster) {
			c.serving = c.cluster
		}
	}
	c.any = len(c.cluster) > 0
	for _, e := range cs {
		if e.is.has(local) && (e.is.has(ready) || e.is.draining()) {
			c.here = append(c.here, e.addr)
		}
	}
	c.here = slices.Clip(slices.Compact(c.here))
	return c
}

func pick(cs []candidate, want func(candidate) bool) []netip.AddrPort {
	n := 0
	for _, c := range cs {
		if want(c) {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	out := make([]netip.AddrPort, 0, n)
	for _, c := range cs {
		if want(c) {
			out = append(out, netip.AddrPortFrom(c.addr, c.port))
		}
	}
	return out
}
