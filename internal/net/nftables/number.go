package nftables

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// The maps of addresses hold numbers and no verdicts: whenever an element that leads
// to a chain is written, the kernel validates all chains that a hook leads to, once
// for each element on the way. So what leads to chains are two maps a family that
// have an element a chain: picks and reasons.

// number is the i-th of those that packets carry to a chain, from 1 on; its first bit
// says that it is ours. nft shows the bytes as they lie in memory, and so this
// one as i and 80: 0x00000180, 0x00000280.
func number(i uint32) string { return mark(ours | bits.ReverseBytes32(i<<8)) }

// indexOf is the reverse; 0 of what is no number of ours.
func indexOf(n string) uint32 {
	if len(n) != 4 {
		return 0
	}
	i := bits.ReverseBytes32(binary.NativeEndian.Uint32([]byte(n))&^ours) >> 8
	if number(i) != n {
		return 0
	}
	return i
}

// reasons are what an element of unserved may say, in the order of their numbers:
// the chain to which it leads, or "drop".
func (f fam) reasons() []string {
	return []string{"refuse", "drop", "inside-only", f.name(rangesOnly), f.name(rangesRefuse), f.name(rangesInside)}
}

func (f fam) reason(gate string) string {
	return number(uint32(slices.Index(f.reasons(), gate) + 1))
}

// putReasons adds the elements that never change.
func (els elements) putReasons() {
	for _, f := range families {
		for i, verdict := range f.reasons() {
			els[slot{set: f.name(reasons), key: number(uint32(i + 1))}] = content{verdict: verdict}
		}
	}
}

// numbers are those of chains that pick an endpoint, in each family by themselves.
// Which one a chain has is history: a daemon that starts takes over those that it
// finds.
type numbers map[pick]uint32

// put adds the element that leads to a chain.
func (ns numbers) put(els elements, p pick) {
	if p.keeps() {
		return
	}
	els[slot{set: p.fam().name(picks), key: number(ns[p])}] = content{verdict: p.name()}
}

// assign gives a number to each of the chains that pick and have none: the one under which it
// is known to the kernel, or else the smallest that nobody has.
func (ns numbers) assign(chains []pick, have elements) {
	type seat struct {
		v6 bool
		i  uint32
	}
	taken, known := map[seat]bool{}, map[string]uint32{}
	for p, i := range ns {
		taken[seat{p.v6, i}] = true
	}
	for s, c := range have {
		if i := indexOf(s.key); i > 0 && s.set[:len(s.set)-1] == picks && (known[c.verdict] == 0 || i < known[c.verdict]) {
			known[c.verdict] = i
		}
	}
	give := func(p pick, i uint32) {
		ns[p], taken[seat{p.v6, i}] = i, true
	}
	chains = slices.DeleteFunc(slices.Clone(chains), pick.keeps)
	for _, p := range chains {
		if i := known[p.name()]; ns[p] == 0 && i > 0 && !taken[seat{p.v6, i}] {
			give(p, i)
		}
	}
	for _, p := range chains {
		if ns[p] > 0 {
			continue
		}
		i := uint32(1)
		for taken[seat{p.v6, i}] {
			i++
		}
		give(p, i)
	}
}

// keep forgets all others.
func (ns numbers) keep(chains map[pick]int) {
	for p := range ns {
		if chains[p] == 0 {
			delete(ns, p)
		}
	}
}
