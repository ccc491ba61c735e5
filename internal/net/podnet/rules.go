package podnet

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// ruleBackend is one way to tell the kernel about masquerade and host ports.
// Its user makes one call at a time. Adding what is there and removing what is
// not are no errors.
type ruleBackend interface {
	// sync makes the kernel hold our rules and exactly these bindings.
	sync(ctx context.Context, want []binding) error
	add(ctx context.Context, b []binding) error
	remove(ctx context.Context, b []binding) error
	// close frees what the backend holds of this process, nothing of the kernel.
	close()
}

// ruleSet is what both backends program.
type ruleSet struct {
	name     string // of the table; part of the chains' names
	bridge   string
	pods     []netip.Prefix
	noMasq   []netip.Prefix // destinations that see the pod's own address
	hairMark uint32
}

// hairpinMark is the packet mark that says "masquerade this published port":
// its sender is a pod on the same bridge, so an answer would go to it directly,
// from an address that it never called. It is the bit that the portmap plugin
// of CNI uses for the same purpose, so whoever else sees it treats it alike;
// kube-proxy's are 0x4000 and 0x8000. It is set and cleared on the first packet
// of a connection only, between prerouting and postrouting.
const hairpinMark = 0x2000

func (n *Network) ruleSet() ruleSet {
	s := ruleSet{name: "nodeagent-podnet", bridge: n.cfg.Bridge, hairMark: hairpinMark}
	if n.cfg.Bridge != defaultBridge {
		s.name += "-" + n.cfg.Bridge
	}
	for _, sp := range n.pool.spans {
		s.pods = append(s.pods, sp.prefix)
	}
	s.noMasq = append(append([]netip.Prefix{}, s.pods...), n.cfg.NonMasquerade...)
	s.noMasq = append(s.noMasq, netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("ff00::/8"))
	return s
}

// fingerprint changes with everything that shapes the fixed rules.
func (s ruleSet) fingerprint() string {
	h := fnv.New64a()
	fmt.Fprintln(h, "4", s.name, s.pods, s.noMasq, s.hairMark)
	return fmt.Sprintf("%016x", h.Sum64())
}

func of(prefixes []netip.Prefix, is4 bool) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range prefixes {
		if p.Addr().Is4() == is4 {
			out = append(out, p)
		}
	}
	return out
}

// wanted returns the bindings of all records that are not being taken back.
func (n *Network) wanted() []binding {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []binding
	for _, r := range n.recs {
		if r.CNI == nil && !r.closing && !r.Doomed {
			out = append(out, bindings(r.Ports, r.Addrs)...)
		}
	}
	return out
}

// bridged tells whether podnet itself serves pods, now or still.
func (n *Network) bridged() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.recs {
		if r.CNI == nil {
			return true
		}
	}
	return n.conf == nil && n.confErr == nil && len(n.pool.spans) > 0
}

// syncRules makes the table whole. What is wanted is read with the table taken:
// a Setup or Teardown that runs meanwhile comes wholly before or after.
func (n *Network) syncRules(ctx context.Context) error {
	n.rulesMu.Lock()
	defer n.rulesMu.Unlock()
	if !n.bridged() {
		return nil
	}
	if n.rules == nil {
		b, err := n.pickBackend()
		if err != nil {
			return err
		}
		n.rules = b
	}
	if err := n.rules.sync(ctx, n.wanted()); err != nil {
		return fmt.Errorf("program pod network rules: %w", err)
	}
	return nil
}

// pickBackend takes nftables where the kernel has it.
func (n *Network) pickBackend() (ruleBackend, error) {
	set := n.ruleSet()
	nftErr := probeNft()
	if nftErr == nil {
		return &nftBackend{set: set}, nil
	}
	b, err := newIptables(set)
	if err != nil {
		return nil, fmt.Errorf("choose a firewall: nftables: %w; iptables: %w", nftErr, err)
	}
	n.log.Warn("the kernel has no nftables; using iptables for the pod network", "error", nftErr)
	return b, nil
}

// deadlineOf bounds a call to the kernel that cannot be cancelled.
func deadlineOf(ctx context.Context) time.Time {
	limit := time.Now().Add(linkTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(limit) {
		return d
	}
	return limit
}

func isMissing(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}
