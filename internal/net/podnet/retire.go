package podnet

import "net/netip"

// Retire has no further pod get an address of the ranges that there are, since they
// are not this node's any more; why is what Ready says meanwhile. next are the
// ranges that follow: an address in one that stays what it is holds nothing up. A
// nil why takes that back. Who follows makes another Network: see Vacant.
func (n *Network) Retire(next []netip.Prefix, why error) {
	n.mu.Lock()
	same := n.retired == nil && why == nil
	n.retired, n.next = why, next
	n.mu.Unlock()
	if same {
		return
	}
	n.changed()
	n.tellVacant()
}

// Vacant tells whether the ranges are retired and no sandbox holds an address any
// more that is not of the ranges that follow.
func (n *Network) Vacant() bool {
	select {
	case <-n.loaded:
	default:
		return false // nobody knows yet who holds what
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.retired != nil && !n.occupiedLocked()
}

func (n *Network) occupiedLocked() bool {
	stays := map[netip.Prefix]bool{}
	for _, p := range n.next {
		stays[p] = true
	}
	for _, r := range n.recs {
		if r.CNI != nil {
			continue // a plugin's addresses are of other ranges
		}
		for _, a := range r.Addrs {
			if s := n.pool.span(a); s == nil || !stays[s.prefix] {
				return true
			}
		}
	}
	return false
}

// tellVacant tells who waits for it that the ranges are nobody's any more.
func (n *Network) tellVacant() {
	if n.cfg.Vacated != nil && n.Vacant() {
		n.cfg.Vacated()
	}
}
