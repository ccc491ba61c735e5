package iptables

import (
	"bufio"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net/netip"
	"strings"
)

// seen is what iptables-save printed of one table, as far as it concerns us.
type seen struct {
	chains  map[string]sum      // ours
	rules   []foreign           // of other chains, that lead to ours
	ways    map[string][]string // of ours, to others of ours
	builtin map[string]bool     // chains of the kernel
}

// foreign is a rule in a chain that is not ours.
type foreign struct{ chain, rule, to string }

// sum tells two lists of rules apart, and how many there are.
type sum struct {
	n      int
	digest uint64
}

// add takes a rule of a chain; where their order means nothing, it does not count.
func (s *sum) add(seed maphash.Seed, chain, rule string) {
	s.n++
	if !anyOrder(chain) {
		s.digest *= 0x100000001b3
	}
	s.digest += maphash.String(seed, rule) + 1
}

// sumOf is that of a chain. seed is drawn anew for each look: nobody can make rules that
// have the same digest.
func sumOf(seed maphash.Seed, chain string, rules []string) sum {
	var s sum
	for _, r := range rules {
		s.add(seed, chain, r)
	}
	return s
}

var errUnreadable = errors.New("somebody wrote rules into this table that iptables cannot read; remove them or serve by nftables")

// parse reads the output of iptables-save for one table.
func parse(r io.Reader, seed maphash.Seed, ours func(string) bool) (seen, error) {
	out := seen{chains: map[string]sum{}, ways: map[string][]string{}, builtin: map[string]bool{}}
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), 1<<20)
	open := false
	for s.Scan() {
		line := s.Text()
		switch {
		case strings.HasPrefix(line, "*"):
			open = true
		case line == "COMMIT":
			open = false
		case strings.HasPrefix(line, ":"):
			name, rest, _ := strings.Cut(line[1:], " ")
			if ours(name) {
				out.chains[name] = sum{}
			} else if !strings.HasPrefix(rest, "-") {
				out.builtin[name] = true
			}
		case strings.HasPrefix(line, "-A "):
			out.rule(line[3:], seed, ours)
		case strings.HasPrefix(line, "# Table") && strings.Contains(line, "incompatible"):
			return out, fmt.Errorf("%w: it says %.200q", errUnreadable, line)
		}
	}
	if err := s.Err(); err != nil {
		return out, err
	}
	if open {
		return out, errors.New("its output ends too early")
	}
	return out, nil
}

func (s *seen) rule(line string, seed maphash.Seed, ours func(string) bool) {
	chain, rule, _ := strings.Cut(line, " ")
	to := target(rule)
	if !ours(chain) {
		if ours(to) {
			s.rules = append(s.rules, foreign{chain, rule, to})
		}
		return
	}
	x := s.chains[chain]
	x.add(seed, chain, plain(rule))
	s.chains[chain] = x
	if ours(to) {
		s.ways[chain] = append(s.ways[chain], to)
	}
}

// target is where a rule leads, or "". A comment can hold "-j", but then it is
// within quotes.
func target(rule string) string {
	quoted := false
	for i := 0; i < len(rule); i++ {
		switch {
		case rule[i] == '\\':
			i++
		case rule[i] == '"':
			quoted = !quoted
		case !quoted && (strings.HasPrefix(rule[i:], "-j ") || strings.HasPrefix(rule[i:], "-g ")) && (i == 0 || rule[i-1] == ' '):
			to, _, _ := strings.Cut(rule[i+3:], " ")
			return to
		}
	}
	return ""
}

// plain undoes that C libraries print some IPv6 addresses as if they had an IPv4
// one within.
func plain(rule string) string {
	if !strings.Contains(rule, ":") || !strings.Contains(rule, ".") {
		return rule
	}
	parts := strings.Split(rule, " ")
	for i := 1; i < len(parts); i++ {
		if parts[i-1] != "-s" && parts[i-1] != "-d" {
			continue
		}
		a, mask, ok := strings.Cut(parts[i], "/")
		x, err := netip.ParseAddr(a)
		if err != nil || !x.Is6() || !ok {
			continue
		}
		if m, err := netip.ParseAddr(mask); err == nil {
			mask = m.String()
		}
		parts[i] = x.String() + "/" + mask
	}
	return strings.Join(parts, " ")
}
