package iptables

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"strings"
)

// Remove takes all that is ours out of the kernel, in both flavours.
func (b *Backend) Remove(ctx context.Context) error {
	b.known = false
	if _, err := b.sweepAll(ctx, flavoursThere(ctx), tables, b.entrances(), b.ours); err != nil {
		return fmt.Errorf("remove service rules: %w", err)
	}
	return nil
}

// flavoursThere is all programs that this node has. What is there of a flavour
// without its programs nobody wrote.
func flavoursThere(ctx context.Context) []tool {
	var out []tool
	for _, flavour := range []Flavour{NFT, Legacy} {
		for _, f := range []fam{ipv4, ipv6} {
			if t, err := find(ctx, f, flavour); err == nil && (!f.v6 || hasIPv6()) {
				out = append(out, t)
			}
		}
	}
	return out
}

func (b *Backend) sweepAll(ctx context.Context, in []tool, tables, entrances []string, owns func(string) bool) (gone []string, err error) {
	defer b.Close() // nobody may have another change for a while
	var errs []error
	for _, x := range in {
		for _, table := range tables {
			n, err := b.sweep(ctx, x, table, entrances, owns)
			if errs = append(errs, err); n > 0 {
				gone = append(gone, fmt.Sprintf("%d chains of %s-%s table %s", n, x.f.command, x.flavour, table))
			}
		}
	}
	return gone, errors.Join(append(errs, ctx.Err())...)
}

func (b *Backend) entrances() []string {
	var out []string
	for _, n := range entrances {
		out = append(out, b.cfg.Prefix+"-"+n)
	}
	return out
}

// sweepOther removes what is ours from the flavour that is not used. A table of
// it that cannot be read must not keep us from serving.
func (b *Backend) sweepOther(ctx context.Context, used Flavour) error {
	other := slices.DeleteFunc(flavoursThere(ctx), func(x tool) bool { return x.flavour == used })
	_, err := b.sweepAll(ctx, other, tables, b.entrances(), b.ours)
	if errors.Is(err, errUnreadable) {
		return ctx.Err()
	}
	return err
}

// Chains of kube-proxy: those that the kernel's own jump to, and the rest.
var (
	proxyEntrances = []string{
		"KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-FORWARD",
		"KUBE-PROXY-FIREWALL", "KUBE-NODE-PORT", "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER",
	}
	proxyChains   = []string{"KUBE-MARK-MASQ", "KUBE-PROXY-CANARY", "KUBE-LOAD-BALANCER", "KUBE-SOURCE-RANGES-FIREWALL"}
	proxyServices = []string{"KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-FW-", "KUBE-XLB-"}
)

func proxyOwns(chain string) bool {
	return slices.Contains(proxyEntrances, chain) || slices.Contains(proxyChains, chain) ||
		slices.ContainsFunc(proxyServices, func(p string) bool { return strings.HasPrefix(chain, p) })
}

// RemoveKubeProxy takes the chains of kube-proxy's iptables mode out of the
// kernel, in both flavours, and the jumps to them. What kubelet and others made
// stays, and a chain to which a rule of theirs leads. Do it after the first Sync
// of whatever replaces them: until then they serve. It says what it removed.
func RemoveKubeProxy(ctx context.Context) (gone []string, err error) {
	b, err := New(Config{})
	if err != nil {
		return nil, err
	}
	gone, err = b.sweepAll(ctx, flavoursThere(ctx), []string{nat, filter, "mangle"}, proxyEntrances, proxyOwns)
	if err != nil {
		return gone, fmt.Errorf("remove the rules of kube-proxy: %w", err)
	}
	return gone, nil
}

// TakeOver is RemoveKubeProxy, for when our own rules are in force.
func (b *Backend) TakeOver(ctx context.Context) ([]string, error) { return RemoveKubeProxy(ctx) }

// cannotBe tells whether a program says that the kernel has no nf_tables.
func cannotBe(x tool, err error) bool {
	said := err.Error()
	return x.flavour == NFT && !strings.Contains(said, "Permission denied") &&
		(strings.Contains(said, "Failed to initialize nft") || strings.Contains(said, "Could not fetch rule set generation id"))
}

// sweep removes the chains of an owner from a table, and the jumps to its
// entrances from the kernel's own chains. A chain to which another rule leads
// stays, with all that it leads to. It returns how many chains went.
func (b *Backend) sweep(ctx context.Context, x tool, table string, entrances []string, owns func(string) bool) (int, error) {
	if !x.has(table) {
		return 0, nil
	}
	var s seen
	err := x.read(ctx, table, func(r io.Reader) (err error) {
		s, err = parse(r, maphash.MakeSeed(), owns)
		return err
	})
	if err != nil && cannotBe(x, err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	p := patch{table: table}
	stay := map[string]bool{}
	var keep func(string)
	keep = func(name string) {
		if !stay[name] {
			stay[name] = true
			for _, to := range s.ways[name] {
				keep(to)
			}
		}
	}
	for _, r := range s.rules {
		if s.builtin[r.chain] && slices.Contains(entrances, r.to) {
			p.undo = append(p.undo, r)
		} else {
			keep(r.to)
		}
	}
	for name := range s.chains {
		if !stay[name] {
			p.drop = append(p.drop, name)
		}
	}
	return len(p.drop), b.write(ctx, x, []patch{p})
}
