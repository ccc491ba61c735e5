package podnet

import (
	"fmt"
	"net/netip"
)

// pool hands out the addresses of the pod ranges. It is a value without I/O:
// what is taken is known from the records, which the caller writes.
//
// Addresses are given in sequence with wrap-around, so that one just freed
// comes back last: its old connections and neighbours' caches have time to end.
type pool struct {
	spans []*span
	used  map[netip.Addr]string // sandbox ID
}

// span is one range.
type span struct {
	prefix      netip.Prefix
	gateway     netip.Addr
	first, last netip.Addr // first and last that a pod may get
	prev        netip.Addr // given last
}

func newPool(cidrs []netip.Prefix) (*pool, error) {
	p := &pool{used: map[netip.Addr]string{}}
	for i, c := range cidrs {
		if !c.IsValid() || c.Addr().Is4In6() {
			return nil, fmt.Errorf("use pod CIDR %q: not a prefix", c)
		}
		if c.Addr().BitLen()-c.Bits() < 2 {
			return nil, fmt.Errorf("use pod CIDR %s: no room for a bridge and a pod", c)
		}
		for _, other := range cidrs[:i] {
			if c.Overlaps(other) {
				return nil, fmt.Errorf("use pod CIDRs %s and %s: they overlap", other, c)
			}
		}
		c = c.Masked()
		s := &span{prefix: c, gateway: c.Addr().Next()}
		s.first, s.last = s.gateway.Next(), lastAddr(c)
		if c.Addr().Is4() {
			s.last = s.last.Prev() // broadcast
		}
		s.prev = s.gateway
		p.spans = append(p.spans, s)
	}
	return p, nil
}

// lastAddr returns the address of c with all host bits set.
func lastAddr(c netip.Prefix) netip.Addr {
	b := c.Addr().AsSlice()
	for i := c.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// take gives a sandbox one address of each family that the ranges have, or
// none at all and an error. IPv4 comes first.
func (p *pool) take(sandbox string) ([]netip.Addr, error) {
	var got []netip.Addr
	for _, is4 := range []bool{true, false} {
		addr, known := p.next(is4)
		if !known {
			continue
		}
		if !addr.IsValid() {
			p.put(got)
			return nil, fmt.Errorf("no free address in %v: %d in use", p.prefixes(is4), len(p.used))
		}
		p.used[addr] = sandbox
		got = append(got, addr)
	}
	return got, nil
}

// next finds a free address of one family; known tells whether there is a range
// of that family at all.
func (p *pool) next(is4 bool) (addr netip.Addr, known bool) {
	for _, s := range p.spans {
		if s.prefix.Addr().Is4() != is4 {
			continue
		}
		known = true
		if a := s.next(p.used); a.IsValid() {
			s.prev = a
			return a, true
		}
	}
	return netip.Addr{}, known
}

// next walks once around the span, but over no more addresses than are in use.
func (s *span) next(used map[netip.Addr]string) netip.Addr {
	a, begin := s.prev, netip.Addr{}
	for range len(used) + 1 {
		if a = a.Next(); !a.IsValid() || a.Compare(s.last) > 0 || a.Compare(s.first) < 0 {
			a = s.first
		}
		if a == begin {
			break
		}
		if !begin.IsValid() {
			begin = a
		}
		if _, taken := used[a]; !taken {
			return a
		}
	}
	return netip.Addr{}
}

// hold marks addresses as taken by a sandbox that already has them.
func (p *pool) hold(sandbox string, addrs []netip.Addr) {
	for _, a := range addrs {
		p.used[a] = sandbox
	}
}

// resume makes the next address given the one after a.
func (p *pool) resume(a netip.Addr) {
	for _, s := range p.spans {
		if s.prefix.Contains(a) {
			s.prev = a
		}
	}
}

// put gives addresses back.
func (p *pool) put(addrs []netip.Addr) {
	for _, a := range addrs {
		delete(p.used, a)
	}
}

func (p *pool) prefixes(is4 bool) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range p.spans {
		if s.prefix.Addr().Is4() == is4 {
			out = append(out, s.prefix)
		}
	}
	return out
}

// span returns the range that holds a.
func (p *pool) span(a netip.Addr) *span {
	for _, s := range p.spans {
		if s.prefix.Contains(a) {
			return s
		}
	}
	return nil
}
