package net

import "net/netip"

// Flows says of UDP addresses to which endpoints their flows may go on. UDP has
// no end: the kernel remembers where a client was led for as long as the client
// goes on sending, also when nobody is there any more.
type Flows map[Address][]netip.AddrPort

// Flows returns the UDP addresses of which some flow may lead nowhere after the
// changes: an endpoint went, the address is new, or it was not served before.
func (d *Diff) Flows() Flows {
	out := Flows{}
	for _, c := range d.Entries {
		if c.addr().Proto != UDP {
			continue
		}
		// An address that moved to another entry is in that one's New.
		out.put(c.Old, nil, true)
	}
	for _, c := range d.Entries {
		if c.New != nil && c.addr().Proto == UDP {
			out.put(c.New, c.New.Serving, !grew(c))
		}
	}
	return out
}

// Flows returns all UDP addresses of the table.
func (t *Table) Flows() Flows {
	out := Flows{}
	for _, e := range t.Entries {
		if e.Addr.Proto == UDP {
			out.put(e, e.Serving, true)
		}
	}
	return out
}

// put notes the addresses of an entry, or that nothing is wrong with them.
func (f Flows) put(e *Entry, to []netip.AddrPort, stale bool) {
	if e == nil {
		return
	}
	at := func(a Address) {
		if stale {
			f[a] = to
		} else {
			delete(f, a)
		}
	}
	at(e.Addr)
	for _, x := range e.Fronts {
		at(x.Address)
	}
}

// grew tells whether all that was served still is, at the same addresses, and by
// at least the endpoints that there were: then no flow leads nowhere.
func grew(c Change) bool {
	if c.Old == nil || len(c.Old.Serving) == 0 || len(c.Old.Fronts) != len(c.New.Fronts) {
		return false
	}
	for i := range c.Old.Fronts {
		if c.Old.Fronts[i].Address != c.New.Fronts[i].Address {
			return false
		}
	}
	is := c.New.Serving // both are sorted
	for _, a := range c.Old.Serving {
		for len(is) > 0 && is[0].Compare(a) < 0 {
			is = is[1:]
		}
		if len(is) == 0 || is[0] != a {
			return false
		}
	}
	return true
}
