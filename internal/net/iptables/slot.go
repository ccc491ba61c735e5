package iptables

import (
	"net/netip"
	"slices"

	"nodeagent/internal/net"
)

// Most services have few endpoints and nothing but a cluster IP. These have no chain of
// their own: each endpoint is one rule, in the tree of the first endpoints, or the second
// ones, and so on. With nf_tables each change costs a walk of all rules, twice, and a rule
// that asks for the dice, or leads to a chain, or has a comment, costs as much as two.

// maxSlots is how many endpoints such a service may have.
const maxSlots = 8

// inside are the endpoints of which one serves who calls the cluster IP.
func inside(e *net.Entry) []netip.AddrPort {
	switch e.ForClusterIP() {
	case net.ToCluster:
		return e.Cluster
	case net.ToLocal:
		return e.Local
	}
	return nil
}

// slotted tells whether an entry has no chain of its own.
func (l *layout) slotted(e *net.Entry) bool {
	n := len(inside(e))
	return n > 0 && n <= maxSlots && e.Affinity == 0 && !l.opens(e) && (len(l.ranges) == 0 || l.ranged(e.Addr.IP))
}

// ranged tells whether an address is in a range of which cluster IPs are drawn.
func (l *layout) ranged(a netip.Addr) bool {
	return slices.ContainsFunc(l.ranges, func(p netip.Prefix) bool { return p.Contains(a) })
}

// toPick leads to the slots who may be served there: anybody, where no range is known.
func (l *layout) toPick() (out []string) {
	for _, p := range l.ranges {
		out = append(out, words(within("-d", p), "-j", l.name(picks)))
	}
	if len(out) == 0 {
		out = append(out, "-j "+l.name(picks))
	}
	return out
}

// draw goes through the slots from the last to the first, into each by a chance of one in
// as many as are left. So each endpoint of a service has the same share, however many
// there are, and no rule has to know how many.
func (l *layout) draw() (out []string) {
	for i := maxSlots - 1; i >= 0; i-- {
		out = append(out, words(share(1, i+1), "-j", l.slots[i].root.name))
	}
	return out
}

// marked are rules that look for a cluster IP: who is no pod is marked meanwhile, and
// stays so if it was found.
func (l *layout) marked(rules []string) []string {
	if len(l.fromPods) == 0 && !l.all {
		return rules
	}
	out := append([]string{"-j " + l.name(outsiders)}, rules...)
	return append(out, "-j MARK --set-xmark 0x0/"+l.bit())
}

// translate is the rule of an endpoint; asked is what it asks a packet for.
func (l *layout) translate(i int, asked func(item) string) func(item) []string {
	return func(x item) []string {
		return []string{words(asked(x), "-j DNAT --to-destination", inside(x.e)[i].String())}
	}
}

// toAddress asks no more than the address, and for the protocol, without which no rule may
// name a port.
func toAddress(x item) string { return words(at("-d", x.at.IP), over(x.at.Proto)) }

// called is a rule for people, which no packet meets. A rule that leads nowhere is kept by
// a legacy table with its place, which moves; so it leads back.
func (l *layout) called(x item) []string { return []string{words(to(x), about(x), "-j RETURN")} }
