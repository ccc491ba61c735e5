package iptables

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
)

// To look at all that is there takes seconds with ten thousand services. In the nft
// flavour the kernel names the chains in which somebody else wrote; where these are
// few, they alone are written again.

// spot is a chain of the kernel.
type spot struct {
	v6           bool
	table, chain string
}

// maxNamed is how many chains are written again before everything is looked at.
const maxNamed = 64

// Attributes of include/uapi/linux/netfilter/nf_tables.h: the table's is the same
// for chains and rules.
const (
	attrTable     = unix.NFTA_RULE_TABLE
	attrRuleChain = unix.NFTA_RULE_CHAIN
	attrChainName = unix.NFTA_CHAIN_NAME
)

// spotOf is where a message says that something changed; false: it is neither a
// rule nor a chain of an iptables table.
func spotOf(m netlink.Message) (spot, bool) {
	name := uint16(attrRuleChain)
	switch uint16(m.Header.Type) & 0xff {
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		name = attrChainName
	default:
		return spot{}, false
	}
	if len(m.Data) < 4 || (m.Data[0] != unix.AF_INET && m.Data[0] != unix.AF_INET6) {
		return spot{}, false
	}
	ad, err := netlink.NewAttributeDecoder(m.Data[4:])
	if err != nil {
		return spot{}, false
	}
	p := spot{v6: m.Data[0] == unix.AF_INET6}
	for ad.Next() {
		switch ad.Type() {
		case attrTable:
			p.table = ad.String()
		case name:
			p.chain = ad.String()
		}
	}
	return p, ad.Err() == nil && slices.Contains(tables, p.table)
}

// named takes the chains in which somebody else wrote. False: all are to be looked
// at, since nobody knows better, or nobody knows of any.
func (b *Backend) named(t *net.Table) (map[spot]bool, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.known || b.edition != t.Edition() || !b.watched || b.unsure || len(b.spots) == 0 {
		return nil, false
	}
	in := b.spots
	b.changed, b.spots = false, nil
	return in, true
}

// mend writes chains again, whatever is there now.
func (b *Backend) mend(ctx context.Context, tools []tool, t *net.Table, in map[spot]bool) (net.Report, error) {
	var r net.Report
	for _, x := range tools {
		l := b.layouts[0]
		if x.f.v6 {
			l = b.layouts[1]
		}
		ps, kernels := l.again(t, in, &r)
		for i := range ps {
			if !kernels[ps[i].table] {
				continue
			}
			s, err := b.jumpsOf(ctx, x, l, ps[i].table)
			if err != nil {
				return r, err
			}
			s.differJumps(l, &ps[i], &r)
		}
		if err := b.write(ctx, x, ps); err != nil {
			return r, err
		}
	}
	return r, nil
}

// again makes patches of some chains: those that shall be there are written, others
// of ours go. It tells of which tables chains of the kernel are among them.
func (l *layout) again(t *net.Table, in map[spot]bool, r *net.Report) (ps []patch, kernels map[string]bool) {
	ps = []patch{{table: nat}, {table: filter}}
	of := map[string]*patch{nat: &ps[0], filter: &ps[1]}
	left := map[spot]bool{}
	kernels = map[string]bool{}
	for p := range in {
		switch {
		case p.v6 != l.f.v6:
		case own(l.prefix, p.chain):
			left[p] = true
		default:
			kernels[p.table] = true
		}
	}
	if len(left) == 0 {
		return ps, kernels
	}
	fixed := l.fixed()
	l.each(t, func(c chain) {
		at := spot{l.f.v6, c.table, c.name}
		if !left[at] {
			return
		}
		delete(left, at)
		of[c.table].write = append(of[c.table].write, rewrite{chain: c})
		r.Elements += len(c.rules)
		if slices.ContainsFunc(fixed, func(f chain) bool { return f.name == c.name }) {
			r.Rebuilt = true
		} else {
			r.Chains++
		}
	})
	for p := range left {
		of[p.table].drop = append(of[p.table].drop, p.chain)
		r.Chains++
	}
	return ps, kernels
}

// jumpsOf reads those rules of the kernel's own chains that lead to ours.
func (b *Backend) jumpsOf(ctx context.Context, x tool, l *layout, table string) (seen, error) {
	out := seen{builtin: map[string]bool{}}
	for _, j := range l.jumps() {
		if j.table != table || out.builtin[j.from] {
			continue
		}
		rules, err := b.rulesToOurs(ctx, x, table, j.from)
		if err != nil {
			return out, err
		}
		out.builtin[j.from] = true
		out.rules = append(out.rules, rules...)
	}
	return out, nil
}

// rulesToOurs lists those rules of a chain that lead to ours.
func (b *Backend) rulesToOurs(ctx context.Context, x tool, table, chain string) ([]foreign, error) {
	var text bytes.Buffer
	args := []string{"-t", table, "-S", chain}
	if err := run(ctx, nil, &text, (*exec.Cmd).Start, x.command, args...); err != nil {
		return nil, err
	}
	s, err := parse(&text, b.left.seed, b.ours)
	if err != nil {
		return nil, fmt.Errorf("%s -t %s -S %s: %w", x.command, table, chain, err)
	}
	return s.rules, nil
}
