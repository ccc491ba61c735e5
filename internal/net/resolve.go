package net

import (
	"net/netip"
	"slices"
)

// resolve makes the entries of one service, and says what it does not get.
func (m *Model) resolve(g *group) (entries []*Entry, bad []Finding) {
	for _, s := range g.slices {
		bad = append(bad, s.bad...)
	}
	if g.svc == nil {
		return nil, nil // slices without a service: nobody asked
	}
	bad = append(bad, g.svc.bad...)
	if g.refused != "" {
		return nil, tidy(append(bad, Finding{ReasonRefused, "no rule of this service is in force until it changes: " + g.refused}))
	}
	for _, ip := range g.svc.clusterIPs {
		for _, p := range g.svc.ports {
			e, why := m.entry(g, p, ip)
			bad = append(bad, why...)
			if e != nil {
				entries = append(entries, e)
			}
		}
	}
	return entries, tidy(bad)
}

// entry makes the entry of one port in one family, or none if its cluster
// address is somebody else's.
func (m *Model) entry(g *group, p servicePort, ip netip.Addr) (*Entry, []Finding) {
	s, f := g.svc, familyOf(ip)
	addr := Address{ip, p.port, p.proto}
	if bad := m.lost(s, p, addr, ClusterIP); bad != nil {
		return nil, bad
	}
	e := &Entry{
		Service: s.key, Port: p.name, Addr: addr, Affinity: s.affinity,
		LocalInside: s.localInside, LocalOutside: s.localOnly,
	}
	var bad []Finding
	front := func(a Address, k Kind) {
		if why := m.lost(s, p, a, k); why != nil {
			bad = append(bad, why...)
			return
		}
		if m.node.has(a.IP) {
			bad = append(bad, Finding{ReasonNodeAddress, k.String() + " " + a.String() + " is an address of this node: what the node itself serves there is hidden"})
		}
		e.Fronts = append(e.Fronts, Front{a, k})
	}
	if p.nodePort != 0 {
		front(Address{anyAddress(f), p.nodePort, p.proto}, NodePort)
	}
	s.outside(f, func(a netip.Addr, k Kind) {
		// The same address by two kinds is one: the smaller kind has the claim.
		if k == Balancer || !slices.Contains(s.balancers, a) {
			front(Address{a, p.port, p.proto}, k)
		}
	})
	slices.SortFunc(e.Fronts, func(a, b Front) int { return a.Address.compare(b.Address) })
	e.Fronts = slices.Clip(e.Fronts)
	if slices.ContainsFunc(e.Fronts, func(x Front) bool { return x.Kind == Balancer }) {
		e.Ranges, e.Ranged = s.allowedAt(f, m.node)
	}
	c := choose(gather(g.slices, p.name, p.proto, f), m.node.Zone, s.localInside || (s.localOnly && len(e.Fronts) > 0), p.proto == UDP)
	e.Cluster, e.Local, e.Serving, e.Here = c.cluster, c.local, c.serving, c.here
	return e, bad
}

// lost says why the service does not get an address that it claims, or nil.
func (m *Model) lost(s *service, p servicePort, a Address, k Kind) []Finding {
	if (k == Balancer || k == External) && m.claims.clusterIPs[a.IP] > 0 {
		return []Finding{{ReasonConflict, k.String() + " " + a.String() + " is a cluster IP of a service; it is left out"}}
	}
	if w := m.claims.winner(a); w.key != s.key || w.port != p.name || w.kind != k {
		return []Finding{{ReasonConflict, k.String() + " " + a.String() + " belongs to " + w.key.String() + " as its " + w.kind.String() + "; it is left out"}}
	}
	return nil
}

// allowedAt adds to the source ranges what a node needs that may call itself: a
// load balancer's address is often bound to the node, and is then the source.
func (s *service) allowedAt(f Family, n Node) ([]netip.Prefix, bool) {
	ps, ranged := s.allowed(f)
	if !slices.ContainsFunc(n.Addrs, func(a netip.Addr) bool {
		return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
	}) {
		return ps, ranged
	}
	for _, a := range s.balancers {
		if familyOf(a) == f {
			ps = append(ps, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return disjoint(ps), ranged
}

// healthOf counts the ready endpoints on this node, each pod once: by its
// address of the service's first family.
func (m *Model) healthOf(g *group) (Health, bool) {
	s := g.svc
	if s == nil || s.healthPort == 0 || m.claims.winner(healthAddress(s.healthPort)).key != s.key {
		return Health{}, false
	}
	h := Health{Service: s.key, Port: s.healthPort}
	if len(s.clusterIPs) == 0 {
		return h, true
	}
	seen := map[netip.Addr]bool{}
	for _, p := range s.ports {
		for _, c := range gather(g.slices, p.name, p.proto, familyOf(s.clusterIPs[0])) {
			if c.is.has(local | ready) {
				seen[c.addr] = true
			}
		}
	}
	h.Local = len(seen)
	return h, true
}
