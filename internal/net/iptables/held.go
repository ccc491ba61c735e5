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

// held puts rules together by the address that they are about: those that name a service
// say which, and what they lead to where it is led.
func held(rules map[string][]string, f fam, ours func(string) bool, out map[string]*net.Held) {
	for _, list := range rules {
		for _, rule := range list {
			a, name, ok := aboutWhat(rule, f)
			if words := strings.Fields(rule); !ok && len(words) == 4 && words[0] == "-d" && strings.HasSuffix(words[3], "-"+refuse) {
				if p, err := netip.ParsePrefix(words[1]); err == nil && p.IsSingleIP() {
					out[p.Addr().String()] = &net.Held{Address: p.Addr().String(), Closed: "refuse"}
				}
			}
			if !ok {
				continue
			}
			h := out[a.String()]
			if h == nil {
				h = &net.Held{Address: a.String()}
				out[h.Address] = h
			}
			h.Service = name
			switch to := target(rule); {
			case to == "DROP":
				h.Closed = "drop"
			case strings.HasSuffix(to, "-"+refuse):
				h.Closed = "refuse"
			case ours(to):
				h.Endpoints = append(h.Endpoints, endsBelow(rules, to, map[string]bool{})...)
			}
		}
	}
}

// aboutWhat reads the address and the comment of a rule that leads to a service, or closes
// one of its addresses.
func aboutWhat(rule string, f fam) (a net.Address, name string, ok bool) {
	_, rest, ok := strings.Cut(rule, `--comment "`)
	name, _, closed := strings.Cut(rest, `"`)
	if !ok || !closed {
		return a, "", false
	}
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
	return a, name, err == nil && a.Proto != 0
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
