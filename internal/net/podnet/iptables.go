package podnet

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/go-iptables/iptables"
)

// iptBackend does with iptables what nftBackend does, for kernels without
// nf_tables. A published port costs two rules or more and each call some
// processes; that is the price of such a kernel.
type iptBackend struct {
	set ruleSet
	by  map[bool]*iptables.IPTables // by "is IPv4"
}

// The chains, all in the table nat. Host ports are in the first two: those on a
// loopback address are the node's own alone.
const (
	iptHostports = "NODEAGENT-HOSTPORTS"
	iptLoopback  = "NODEAGENT-LOOPBACK"
	iptHairpin   = "NODEAGENT-HAIRPIN"
	iptLeaving   = "NODEAGENT-LEAVING"
	iptPost      = "NODEAGENT-POST"
)

func newIptables(s ruleSet) (*iptBackend, error) {
	b := &iptBackend{set: s, by: map[bool]*iptables.IPTables{}}
	for _, is4 := range []bool{true, false} {
		if len(of(s.pods, is4)) == 0 {
			continue
		}
		names, proto := []string{"iptables-legacy", "iptables"}, iptables.ProtocolIPv4
		if !is4 {
			names, proto = []string{"ip6tables-legacy", "ip6tables"}, iptables.ProtocolIPv6
		}
		path, err := lookAny(names)
		if err != nil {
			return nil, err
		}
		ipt, err := iptables.New(iptables.IPFamily(proto), iptables.Path(path), iptables.Timeout(5))
		if err != nil {
			return nil, fmt.Errorf("ask %s for its version: %w", path, err)
		}
		if _, err := ipt.List("nat", "POSTROUTING"); err != nil {
			return nil, fmt.Errorf("list the nat table with %s: %w", path, err)
		}
		b.by[is4] = ipt
	}
	return b, nil
}

func lookAny(names []string) (string, error) {
	var errs []error
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err == nil {
			return path, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

// jumps are the rules in the host's own chains.
func (b *iptBackend) jumps(is4 bool) [][]string {
	local := []string{"-m", "addrtype", "--dst-type", "LOCAL", "-j", iptHostports}
	return [][]string{
		append([]string{"PREROUTING"}, local...),
		{"OUTPUT", "-d", family(is4).loopback.String(), "-j", iptLoopback},
		append([]string{"OUTPUT"}, local...),
		{"POSTROUTING", "-j", iptPost},
	}
}

// chains returns our chains with their rules for one family.
func (b *iptBackend) chains(is4 bool, bs []binding) (names []string, rules map[string][][]string) {
	mark := fmt.Sprintf("0x%x/0x%x", b.set.hairMark, b.set.hairMark)
	rules = map[string][][]string{
		iptHairpin: {
			{"-j", "MARK", "--set-xmark", fmt.Sprintf("0x0/0x%x", b.set.hairMark)},
			b.masquerade(is4),
		},
		iptPost: {{"-m", "mark", "--mark", mark, "-j", iptHairpin}},
	}
	for _, p := range of(b.set.noMasq, is4) {
		rules[iptLeaving] = append(rules[iptLeaving], []string{"-d", p.String(), "-j", "RETURN"})
	}
	rules[iptLeaving] = append(rules[iptLeaving], b.masquerade(is4))
	for _, p := range of(b.set.pods, is4) {
		rules[iptPost] = append(rules[iptPost], []string{"-s", p.String(), "-j", iptLeaving})
	}
	loopback := family(is4).loopback.String()
	rules[iptHostports] = [][]string{{"-d", loopback, "-j", "RETURN"}}
	rules[iptLoopback] = [][]string{{"-s", loopback, "-j", "RETURN"}}
	for _, x := range bs {
		if x.Pod.Is4() == is4 {
			rules[chainOf(x)] = append(rules[chainOf(x)], b.portRules(x)...)
		}
	}
	return []string{iptHostports, iptLoopback, iptHairpin, iptLeaving, iptPost}, rules
}

func (b *iptBackend) masquerade(is4 bool) []string {
	r := []string{"-j", "MASQUERADE"}
	if ipt := b.by[is4]; ipt != nil && ipt.HasRandomFully() {
		r = append(r, "--random-fully")
	}
	return r
}

func chainOf(x binding) string {
	if x.HostIP.IsLoopback() {
		return iptLoopback
	}
	return iptHostports
}

func (b *iptBackend) portRules(x binding) [][]string {
	match := []string{"-p", protoName(x.Proto), "--dport", strconv.Itoa(int(x.HostPort))}
	if x.HostIP.IsValid() {
		match = append(match, "-d", x.HostIP.String())
	}
	var out [][]string
	for _, p := range of(b.set.pods, x.Pod.Is4()) {
		out = append(out, slices.Concat(match, []string{"-s", p.String(), "-j", "MARK", "--set-xmark",
			fmt.Sprintf("0x%x/0x%x", b.set.hairMark, b.set.hairMark)}))
	}
	to := netip.AddrPortFrom(x.Pod, x.Container).String()
	return append(out, slices.Concat(match, []string{"-j", "DNAT", "--to-destination", to}))
}

// tagged adds a comment by which the rule is known again, whatever form the
// tool prints it in.
func tagged(rule []string) []string {
	h := fnv.New64a()
	fmt.Fprint(h, strings.Join(rule, " "))
	return append([]string{"-m", "comment", "--comment", fmt.Sprintf("nodeagent:%016x", h.Sum64())}, rule...)
}

// tags returns the tags of a chain's rules as listed, "" for foreign ones.
func tags(lines []string) []string {
	var out []string
	for _, l := range lines {
		if !strings.HasPrefix(l, "-A ") {
			continue
		}
		_, rest, _ := strings.Cut(l, "nodeagent:")
		out = append(out, rest[:min(16, len(rest))])
	}
	return out
}

func (b *iptBackend) sync(_ context.Context, want []binding) error {
	for is4, ipt := range b.by {
		names, rules := b.chains(is4, want)
		for _, name := range names {
			if err := syncChain(ipt, name, rules[name]); err != nil {
				return err
			}
		}
		for _, j := range b.jumps(is4) {
			if err := ipt.AppendUnique("nat", j[0], j[1:]...); err != nil {
				return fmt.Errorf("let %s call our chain: %w", j[0], err)
			}
		}
	}
	return nil
}

func syncChain(ipt *iptables.IPTables, name string, rules [][]string) error {
	var want []string
	full := make([][]string, 0, len(rules))
	for _, r := range rules {
		t := tagged(r)
		full = append(full, t)
		want = append(want, strings.TrimPrefix(t[3], "nodeagent:"))
	}
	lines, err := ipt.List("nat", name)
	if err == nil && sameTags(tags(lines), want, name == iptHostports || name == iptLoopback) {
		return nil
	}
	if err := ipt.ClearChain("nat", name); err != nil {
		return fmt.Errorf("make chain %s: %w", name, err)
	}
	for _, r := range full {
		if err := ipt.Append("nat", name, r...); err != nil {
			return fmt.Errorf("add a rule to chain %s: %w", name, err)
		}
	}
	return nil
}

// sameTags compares; ports may stand in any order but for the first rule.
func sameTags(have, want []string, anyOrder bool) bool {
	if anyOrder && len(have) > 1 && len(want) > 1 {
		have, want = slices.Clone(have), slices.Clone(want)
		slices.Sort(have[1:])
		slices.Sort(want[1:])
	}
	return slices.Equal(have, want)
}

func (b *iptBackend) add(_ context.Context, bs []binding) error {
	for _, x := range bs {
		ipt := b.by[x.Pod.Is4()]
		if ipt == nil {
			continue // a range of this family is no longer configured
		}
		for _, r := range b.portRules(x) {
			if err := ipt.AppendUnique("nat", chainOf(x), tagged(r)...); err != nil {
				return fmt.Errorf("publish %s: %w", x.port, err)
			}
		}
	}
	return nil
}

func (b *iptBackend) remove(_ context.Context, bs []binding) error {
	for _, x := range bs {
		ipt := b.by[x.Pod.Is4()]
		if ipt == nil {
			continue // a range of this family is no longer configured
		}
		for _, r := range b.portRules(x) {
			if err := ipt.DeleteIfExists("nat", chainOf(x), tagged(r)...); err != nil {
				return fmt.Errorf("take back %s: %w", x.port, err)
			}
		}
	}
	return nil
}

func (b *iptBackend) close() {}
