package main

import (
	"context"
	"fmt"
	"strings"

	"nodeagent/test/measure"
)

// With nf_tables a change costs a walk of all rules, from each hook that leads to them.
// What the bare program uses for one chain in the same tables is most of what a change
// costs; and what it uses where each endpoint is one rule that translates, and nothing
// asks which service is meant, is less than any rules that serve can cost.

const nftRestore = "iptables-nft-restore"

// inTheSame is what the bare program uses for one chain beside a side's own rules.
func (b *bench) inTheSame(ctx context.Context, s *side, v *values, n int) error {
	if b.mode != "iptables" || n != b.services {
		return nil
	}
	if err := b.oneChain(ctx, s.changes, &v[bareCPU]); err != nil {
		return err
	}
	_, err := b.feed(ctx, nftRestore, "*nat\n:BARE - [0:0]\n-X BARE\nCOMMIT\n", "--noflush")
	return err
}

// oneChain has the bare program write a chain now and then, and takes down what it used.
func (b *bench) oneChain(ctx context.Context, times int, into *[]float64) error {
	for i := range times + 1 {
		if err := measure.Pause(ctx, apart); err != nil {
			return err
		}
		took, err := b.feed(ctx, nftRestore, bare, "--noflush")
		if err != nil {
			return err
		}
		if i > 0 { // the first one makes it
			*into = append(*into, took.Seconds())
		}
	}
	return nil
}

// together is how many of the least rules are in a chain, and so many chains are written
// at once.
const together = 100

// least has as many endpoints as there are, each a rule and no more, and one chain beside
// them written again.
func (b *bench) least(ctx context.Context, s *side) error {
	chains := b.services * each / together
	for c := 0; c < chains; c += together {
		last := min(c+together, chains)
		if _, err := b.feed(ctx, nftRestore, leastChains(c, last), "--noflush"); err != nil {
			return fmt.Errorf("write the least rules: %w", err)
		}
	}
	var lead strings.Builder
	lead.WriteString("*nat\n:LEAST - [0:0]\n")
	for c := range chains {
		fmt.Fprintf(&lead, "-A LEAST -j LEAST-%d\n", c)
	}
	lead.WriteString("-A PREROUTING -d 192.0.2.77 -j LEAST\n-A OUTPUT -d 192.0.2.77 -j LEAST\nCOMMIT\n")
	if _, err := b.feed(ctx, nftRestore, lead.String(), "--noflush"); err != nil {
		return fmt.Errorf("lead to the least rules: %w", err)
	}
	return b.oneChain(ctx, s.changes, &s.of(b.services)[leastCPU])
}

// leastChains are the chains from one to before another.
func leastChains(first, end int) string {
	var out strings.Builder
	out.WriteString("*nat\n")
	for c := first; c < end; c++ {
		fmt.Fprintf(&out, ":LEAST-%d - [0:0]\n", c)
	}
	for c := first; c < end; c++ {
		for x := c * together; x < (c+1)*together; x++ {
			fmt.Fprintf(&out, "-A LEAST-%d -j DNAT --to-destination %s\n", c, endpointAddress(x/each, x%each))
		}
	}
	out.WriteString("COMMIT\n")
	return out.String()
}
