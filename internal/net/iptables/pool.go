package iptables

import (
	"fmt"
	"hash/fnv"
	"math"
	"net/netip"
	"strconv"

	"nodeagent/internal/net"
)

// Many endpoints are split into groups, so that neither a packet nor a change
// walks them all. In which group one is depends on itself and on how many groups
// there are, so that one that comes or goes concerns one group.
const maxPool = 64

// pick is one of those that a chain picks from: an endpoint, or a group.
type pick struct {
	weight int
	then   string // the rule's target
	list   string // for affinity
}

// pool makes the chains that pick one of some endpoints; the first has the name,
// and begins with the rules of lead.
func (l *layout) pool(e *net.Entry, kind string, ends []netip.AddrPort, lead []string) []chain {
	groups := 1
	for len(ends) > maxPool && groups*groups < len(ends) {
		groups *= 2
	}
	if groups == 1 {
		return []chain{{nat, l.chainOf(kind, e), append(lead, l.picks(e, l.ends(e, ends))...)}}
	}
	parts := make([][]netip.AddrPort, groups)
	for _, a := range ends {
		i := groupOf(a, groups)
		parts[i] = append(parts[i], a)
	}
	var all []pick
	var out []chain
	for i, part := range parts {
		if len(part) == 0 {
			continue
		}
		n := strconv.Itoa(groups) + "/" + strconv.Itoa(i)
		c := chain{nat, l.chainOf(toGroup, e, kind, n), l.picks(e, l.ends(e, part))}
		out = append(out, c)
		all = append(all, pick{len(part), "-g " + c.name, l.listOf(e, kind+n, netip.AddrPort{})})
	}
	return append(out, chain{nat, l.chainOf(kind, e), append(lead, l.picks(e, all)...)})
}

func groupOf(a netip.AddrPort, groups int) int {
	h := fnv.New32a()
	b, _ := a.MarshalBinary()
	h.Write(b)
	return int(h.Sum32()>>8) % groups
}

func (l *layout) ends(e *net.Entry, in []netip.AddrPort) []pick {
	out := make([]pick, 0, len(in))
	for _, a := range in {
		p := pick{1, "-j DNAT --to-destination " + a.String(), ""}
		if e.Affinity > 0 {
			p.list = l.listOf(e, "", a)
		}
		out = append(out, p)
	}
	return out
}

// picks are the rules that pick: with affinity first who is remembered goes
// where it went, and its time begins anew. Then each has its share of what those
// before it left.
func (l *layout) picks(e *net.Entry, in []pick) []string {
	total, out := 0, make([]string, 0, 2*len(in))
	recent := func(what string, p pick) string {
		if e.Affinity == 0 {
			return ""
		}
		return "-m recent " + what + " --name " + p.list + " --mask " + l.f.full + " --rsource"
	}
	p := over(e.Addr.Proto)
	for _, x := range in {
		total += x.weight
		if e.Affinity > 0 {
			out = append(out, words(p, recent(fmt.Sprintf("--update --seconds %d --reap", e.Affinity), x), x.then))
		}
	}
	for _, x := range in {
		out = append(out, words(p, share(x.weight, total), recent("--set", x), x.then))
		total -= x.weight
	}
	return out
}

// share is a match that n of total packets pass; it is printed as the kernel
// keeps it, in parts of 2^31.
func share(n, total int) string {
	if n == total {
		return ""
	}
	const whole = 1 << 31
	parts := math.Round(whole * float64(n) / float64(total))
	return "-m statistic --mode random --probability " + strconv.FormatFloat(parts/whole, 'f', 11, 64)
}
