package ipvs

import (
	"net/netip"
	"slices"

	"nodeagent/internal/net"
)

// server names a virtual server: an address, or of a family the mark that packets
// bear.
type server struct {
	at   net.Address // of a mark only the unspecified address
	mark uint32
}

// quick tells of servers whose endpoints go at once: UDP has no end to wait for,
// and its senders would be led to nobody.
func (s server) quick() bool {
	if s.mark != 0 {
		return s.mark&markQuick != 0
	}
	return s.at.Proto == net.UDP
}

// pool is what a virtual server leads to.
type pool struct {
	scheduler string
	keep      uint32                 // seconds of affinity
	ends      map[netip.AddrPort]int // weights
}

// holding is what the kernel holds, or shall, or a part of it.
type holding struct {
	servers  map[server]pool
	elements map[element]uint32 // and their marks
	bound    map[netip.Addr]bool
}

func newHolding() holding {
	return holding{map[server]pool{}, map[element]uint32{}, map[netip.Addr]bool{}}
}

// Marks of ours: a tag in the upper bits, and a number; the bit of masquerade is in
// neither. That the two lowest bits are not zero says that the server is one of UDP,
// which the kernel does not tell.
const (
	markTag   = 0x69700000
	markMask  = 0xfff00000
	markQuick = 3
	markStep  = 4
)

// hashScheduler leads a source to the same endpoint, and few to others when
// endpoints come and go.
const hashScheduler = "mh"

// ourMark tells our marks by their tag.
func ourMark(m, bit uint32) bool { return m&markMask == markTag&^bit }

// plan makes what the kernel shall hold. It remembers what entries alone do not
// tell: the marks in use, and by how many entries an address is.
type plan struct {
	cfg   Config
	bit   uint32
	nodes []netip.Addr // the node's addresses on other devices, sorted
	marks map[net.Address]uint32
	users map[uint32]net.Address
	next  [2]uint32 // no smaller one is free, of TCP and of UDP
	uses  map[netip.Addr]int
}

func newPlan(cfg Config, bit uint32, nodes []netip.Addr) *plan {
	first := uint32(markTag&^bit) + markStep
	next := [2]uint32{first, first | markQuick&^bit}
	return &plan{cfg, bit, nodes, map[net.Address]uint32{}, map[uint32]net.Address{}, next, map[netip.Addr]int{}}
}

// elsewhere tells whether another device of the node has the address.
func (p *plan) elsewhere(a netip.Addr) bool {
	_, ok := slices.BinarySearchFunc(p.nodes, a, netip.Addr.Compare)
	return ok
}

// whole makes all of it. marks are those that the kernel has for addresses: they
// are taken over, so that a start changes nothing.
func (p *plan) whole(t *net.Table, marks map[net.Address]uint32) holding {
	h := newHolding()
	entries := t.Sorted()
	for _, e := range entries {
		p.adopt(e, marks)
	}
	for _, e := range entries {
		p.mark(e)
		p.put(h, e)
		for _, a := range vips(e) {
			if p.uses[a]++; p.uses[a] == 1 {
				p.bind(h, a)
			}
		}
	}
	for _, a := range t.Here() {
		h.elements[itself(a)] = 0
	}
	return h
}

// change makes what the kernel holds of the entries that change, and what it
// shall hold of them.
func (p *plan) change(d *net.Diff) (have, want holding) {
	have, want = newHolding(), newHolding()
	delta := map[netip.Addr]int{}
	var free []net.Address
	for _, c := range d.Entries {
		if c.Old == nil {
			continue
		}
		p.put(have, c.Old)
		for _, a := range vips(c.Old) {
			delta[a]--
		}
		if mixed(c.Old) && (c.New == nil || !mixed(c.New)) {
			free = append(free, c.Old.Addr)
		}
	}
	for _, c := range d.Entries {
		if c.New == nil {
			continue
		}
		p.mark(c.New)
		p.put(want, c.New)
		for _, a := range vips(c.New) {
			delta[a]++
		}
	}
	for _, a := range free { // not before: nobody shall be led by a mark of another in between
		m := p.marks[a]
		next := &p.next[kindOf(m)]
		*next = min(*next, m)
		delete(p.users, m)
		delete(p.marks, a)
	}
	p.count(delta, have, want)
	for _, a := range d.Here.Removed {
		have.elements[itself(a)] = 0
	}
	for _, a := range d.Here.Added {
		want.elements[itself(a)] = 0
	}
	return have, want
}

// count counts by how many entries addresses are used.
func (p *plan) count(delta map[netip.Addr]int, have, want holding) {
	for a, n := range delta {
		was := p.uses[a]
		if was+n == 0 {
			delete(p.uses, a)
		} else {
			p.uses[a] = was + n
		}
		switch {
		case was == 0 && n > 0:
			p.bind(want, a)
		case was > 0 && was+n == 0:
			p.bind(have, a)
		}
	}
}

// bind puts an address on the device, if no other device has it: then only what
// is served there is ours.
func (p *plan) bind(h holding, a netip.Addr) {
	if !p.elsewhere(a) {
		h.bound[a] = true
		h.elements[onlyAddress(ips, a)] = 0
	}
}

// vips are the addresses that an entry needs on this node, each once.
func vips(e *net.Entry) []netip.Addr {
	out := []netip.Addr{e.Addr.IP}
	for _, x := range e.Fronts {
		if x.Kind != net.NodePort && !slices.Contains(out, x.Address.IP) {
			out = append(out, x.Address.IP)
		}
	}
	return out
}

// mixed tells of entries that lead callers from outside to other endpoints than
// pods and the node. An address has one virtual server: that of the outside has a
// mark instead.
func mixed(e *net.Entry) bool {
	return e.LocalOutside && len(e.Fronts) > 0 && e.ForOutside() == net.ToLocal && !slices.Equal(e.Local, e.Cluster)
}

// put adds what an entry needs; if it is mixed it has its mark already.
func (p *plan) put(h holding, e *net.Entry) {
	add := func(s set, a net.Address) { h.elements[element{set: s, at: a}] = 0 }
	switch e.ForClusterIP() {
	case net.ToCluster:
		p.serveInside(h, e, e.Cluster)
	case net.ToLocal:
		p.serveInside(h, e, e.Local)
	case net.Refuse:
		add(refuse, e.Addr)
	case net.Drop:
		add(drop, e.Addr)
	}
	for _, x := range e.Fronts {
		for _, a := range p.places(x) {
			p.putFront(h, e, x, a)
		}
	}
	if mixed(e) {
		p.serve(h, server{at: anyOf(e.Addr.IP), mark: p.marks[e.Addr]}, e, e.Local)
	}
}

func (p *plan) serveInside(h holding, e *net.Entry, ends []netip.AddrPort) {
	p.serve(h, server{at: e.Addr}, e, ends)
	if p.cfg.MasqueradeAll {
		h.elements[element{set: masq, at: e.Addr}] = 0
	} else if len(p.cfg.Pods)+len(p.cfg.PodInterfaces) > 0 {
		h.elements[element{set: cluster, at: e.Addr}] = 0
	}
}

func (p *plan) putFront(h holding, e *net.Entry, x net.Front, a net.Address) {
	add := func(s set) { h.elements[element{set: s, at: a}] = 0 }
	if x.Kind == net.Balancer && e.Ranged {
		add(gated)
		for _, r := range e.Ranges {
			h.elements[element{ranges, a, r.Masked()}] = 0
		}
		if !p.nodeIn(e.Ranges) {
			add(notNode)
		}
	}
	if e.ForInside() == net.Refuse {
		add(refuse)
		return
	}
	p.serve(h, server{at: a}, e, e.Cluster)
	switch {
	case !e.LocalOutside:
		add(masq)
	case e.ForOutside() == net.Drop:
		add(inside)
	case mixed(e):
		h.elements[element{set: local, at: a}] = p.marks[e.Addr]
	}
}

// nodeIn tells whether the node is in source ranges.
func (p *plan) nodeIn(ranges []netip.Prefix) bool {
	return slices.ContainsFunc(p.cfg.Addrs, func(a netip.Addr) bool {
		return slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Contains(a) })
	})
}

// serve adds a virtual server. The kernel does not translate ports for who is
// remembered by a mark's server, so that affinity is by a hash of the source there.
func (p *plan) serve(h holding, s server, e *net.Entry, ends []netip.AddrPort) {
	to := pool{p.cfg.Scheduler, e.Affinity, make(map[netip.AddrPort]int, len(ends))}
	for _, a := range ends {
		to.ends[a] = 1
	}
	if s.mark != 0 && e.Affinity > 0 {
		to.scheduler, to.keep = hashScheduler, 0
	}
	h.servers[s] = to
	if s.mark == 0 {
		h.elements[element{set: served, at: s.at}] = 0
	}
}

// places are the addresses of a front: a node port has one a node's address.
func (p *plan) places(x net.Front) []net.Address {
	if x.Kind != net.NodePort {
		return []net.Address{x.Address}
	}
	var out []net.Address
	for _, a := range p.nodes {
		if a.Is4() == x.Address.IP.Is4() && p.servesPorts(a) {
			out = append(out, net.Address{IP: a, Port: x.Address.Port, Proto: x.Address.Proto})
		}
	}
	return out
}

func (p *plan) servesPorts(a netip.Addr) bool {
	return len(p.cfg.NodePorts) == 0 || slices.ContainsFunc(p.cfg.NodePorts, func(x netip.Prefix) bool { return x.Contains(a) })
}

func anyOf(a netip.Addr) net.Address {
	if a.Is4() {
		return net.Address{IP: netip.IPv4Unspecified()}
	}
	return net.Address{IP: netip.IPv6Unspecified()}
}

// adopt takes over the mark that the kernel has for an address of a mixed entry.
func (p *plan) adopt(e *net.Entry, marks map[net.Address]uint32) {
	if !mixed(e) {
		return
	}
	for _, x := range e.Fronts {
		for _, a := range p.places(x) {
			m := marks[a]
			if _, used := p.users[m]; ourMark(m, p.bit) && m&p.bit == 0 && kindOf(m) == protoKind(e) && !used {
				p.marks[e.Addr], p.users[m] = m, e.Addr
				return
			}
		}
	}
}

// kindOf is 1 for marks of UDP, protoKind for its entries.
func kindOf(m uint32) int {
	if m&markQuick != 0 {
		return 1
	}
	return 0
}

func protoKind(e *net.Entry) int {
	if e.Addr.Proto == net.UDP {
		return 1
	}
	return 0
}

// mark gives a mixed entry that has no mark the smallest one that is free.
func (p *plan) mark(e *net.Entry) {
	if _, has := p.marks[e.Addr]; has || !mixed(e) {
		return
	}
	kind := protoKind(e)
	m := p.next[kind]
	for ; ; m += markStep {
		if _, used := p.users[m]; !used && m&p.bit == 0 {
			break
		}
	}
	p.marks[e.Addr], p.users[m], p.next[kind] = m, e.Addr, m+markStep
}
