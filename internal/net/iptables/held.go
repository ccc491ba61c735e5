package iptables

import (
	"bufio"
	"context"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nodeagent/internal/net"
)

// Held reads what the kernel holds for each address, whoever wrote it. It needs no Sync
// before, and changes nothing. None: there are no chains of ours.
func (b *Backend) Held(ctx context.Context) ([]net.Held, error) {
	tools, err := b.choose(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]*net.Held{}
	for _, x := range tools {
		rules := map[string][]string{}
		for _, table := range tables {
			if !x.has(table) {
				continue
			}
			if err := x.read(ctx, table, func(r io.Reader) error { return ownRules(r, b.ours, rules) }); err != nil {
				return nil, err
			}
		}
		held(rules, x.f, b.ours, out)
	}
	return net.Tidy(out), nil
}

// ownRules reads the rules of our chains from what iptables-save prints.
func ownRules(r io.Reader, ours func(string) bool, into map[string][]string) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	for s.Scan() {
		rest, is := strings.CutPrefix(s.Text(), "-A ")
		if chain, rule, _ := strings.Cut(rest, " "); is && ours(chain) {
			into[chain] = append(into[chain], rule)
		}
	}
	return s.Err()
}

// maxLine bounds a line of the program's output.
const maxLine = 64 << 10

// held puts rules together by the address that they are about.
func held(rules map[string][]string, f fam, ours func(string) bool, out map[string]*net.Held) {
	of := func(address string) *net.Held {
		if out[address] == nil {
			out[address] = &net.Held{Address: address}
		}
		return out[address]
	}
	for chain, list := range rules {
		for _, rule := range list {
			if a, end, ok := translated(chain, rule, f); ok {
				h := of(a.String())
				h.Endpoints = append(h.Endpoints, end)
			} else if a, name, ok := aboutWhat(rule, f); ok {
				h := of(a.String())
				h.Service = name
				leadsTo(rules, rule, ours, h)
			} else if address, ok := closedWhole(rule); ok {
				of(address).Closed = "refuse"
			}
		}
	}
}

// leadsTo takes down where a rule leads that is about a service.
func leadsTo(rules map[string][]string, rule string, ours func(string) bool, h *net.Held) {
	switch to := target(rule); {
	case to == "DROP":
		h.Closed = "drop"
	case strings.HasSuffix(to, "-"+refuse):
		h.Closed = "refuse"
	case ours(to):
		h.Endpoints = append(h.Endpoints, endsBelow(rules, to, map[string]bool{})...)
	}
}

// closedWhole reads the address or the range that a rule refuses whatever the port.
func closedWhole(rule string) (address string, ok bool) {
	words := strings.Fields(rule)
	if len(words) < 4 || words[0] != "-d" || !strings.HasSuffix(target(rule), "-"+refuse) || strings.Contains(rule, " -p ") {
		return "", false
	}
	p, err := netip.ParsePrefix(words[1])
	if err != nil {
		return "", false
	}
	if p.IsSingleIP() {
		return p.Addr().String(), true
	}
	return p.String(), true
}

// translated reads the rule of an endpoint in the tree of a slot: the chain's name tells
// the port where the rule does not.
func translated(chain, rule string, f fam) (a net.Address, to netip.AddrPort, ok bool) {
	_, end, ok := strings.Cut(rule, "-j DNAT --to-destination ")
	_, chain, _ = strings.Cut(chain, "-")
	tree, way, _ := strings.Cut(chain, "-")
	if !ok || !slices.Contains(slotNames, tree) {
		return a, to, false
	}
	a, ok = addressOf(rule, f)
	if !ok && len(way) >= wholePort {
		n, err := strconv.ParseUint(way[1:wholePort], 16, 16)
		a.Port, ok = uint16(n), err == nil && a.Proto != 0
	}
	to, err := netip.ParseAddrPort(end)
	return a, to, ok && err == nil
}

// aboutWhat reads the address and the comment of a rule that leads to a service, or closes
// one of its addresses.
func aboutWhat(rule string, f fam) (a net.Address, name string, ok bool) {
	_, rest, ok := strings.Cut(rule, `--comment "`)
	name, _, closed := strings.Cut(rest, `"`)
	if !ok || !closed {
		return a, "", false
	}
	a, ok = addressOf(rule, f)
	return a, name, ok
}

// addressOf reads an address; false: its port or protocol is missing.
func addressOf(rule string, f fam) (a net.Address, ok bool) {
	a.IP = netip.IPv4Unspecified()
	if f.v6 {
		a.IP = netip.IPv6Unspecified()
	}
	words := strings.Fields(rule)
	after := func(flag string) string {
		if i := slices.Index(words, flag); i >= 0 && i+1 < len(words) {
			return words[i+1]
		}
		return ""
	}
	if p, err := netip.ParsePrefix(after("-d")); err == nil {
		a.IP = p.Addr()
	}
	n, err := strconv.ParseUint(after("--dport"), 10, 16)
	a.Port = uint16(n)
	for _, p := range []net.Proto{net.TCP, net.UDP, net.SCTP} {
		if proto(p) == after("-p") {
			a.Proto = p
		}
	}
	return a, err == nil && a.Proto != 0
}

// endsBelow finds the endpoints to which a chain leads.
func endsBelow(rules map[string][]string, chain string, seen map[string]bool) (out []netip.AddrPort) {
	if seen[chain] {
		return nil
	}
	seen[chain] = true
	for _, rule := range rules[chain] {
		if _, to, ok := strings.Cut(rule, "--to-destination "); ok {
			to, _, _ = strings.Cut(to, " ")
			if a, err := netip.ParseAddrPort(to); err == nil {
				out = append(out, a)
			}
		} else if to := target(rule); rules[to] != nil {
			out = append(out, endsBelow(rules, to, seen)...)
		}
	}
	return out
}

// ForwardDrops names the chains of the legacy flavour that drop what passes through the
// node and no rule accepts; those of the other flavour are chains of nftables.
func ForwardDrops(ctx context.Context) ([]string, error) {
	var out []string
	for _, f := range []fam{ipv4, ipv6} {
		x := tool{f: f, flavour: Legacy}
		if !x.has(filter) {
			continue
		}
		x, err := find(ctx, f, Legacy)
		if err != nil {
			return out, err
		}
		if err := x.read(ctx, filter, func(r io.Reader) error {
			s := bufio.NewScanner(r)
			s.Buffer(nil, maxLine)
			for s.Scan() {
				if strings.HasPrefix(s.Text(), ":FORWARD DROP ") {
					out = append(out, "chain FORWARD of "+f.command+"-legacy")
				}
			}
			return s.Err()
		}); err != nil {
			return out, err
		}
	}
	return out, nil
}
