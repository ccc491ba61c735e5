package nftables

import (
	"net/netip"
	"slices"
)

// arrange orders the endpoints that are wanted, which are sorted, so that as
// many as possible keep the number that they have: one that goes is replaced by
// the last one. So one endpoint of ten thousand that goes costs two elements;
// and a daemon that starts takes over whatever order it finds.
//
// What is not valid in have is a number that nobody has.
func arrange(have, want []netip.AddrPort) []netip.AddrPort {
	if slices.Equal(have, want) {
		return want
	}
	out, kept := make([]netip.AddrPort, len(want)), make([]bool, len(want))
	for i, a := range have {
		if i >= len(want) {
			break
		}
		if j, ok := slices.BinarySearchFunc(want, a, netip.AddrPort.Compare); ok && !kept[j] {
			out[i], kept[j] = a, true
		}
	}
	next := 0
	for j, a := range want {
		if kept[j] {
			continue
		}
		for out[next].IsValid() {
			next++
		}
		out[next] = a
	}
	return out
}

// order returns how the kernel holds a pool whose endpoints are sorted.
func (b *Backend) order(p pool, sorted []netip.AddrPort) []netip.AddrPort {
	if o, ok := b.orders[p]; ok {
		return o
	}
	return sorted
}

// setOrder notes it; most pools are sorted and take no memory.
func (b *Backend) setOrder(p pool, order, sorted []netip.AddrPort) {
	if len(order) == 0 || slices.Equal(order, sorted) {
		delete(b.orders, p)
	} else {
		b.orders[p] = order
	}
}
