package iptables

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// kernel is what a kernel holds of one family: tables, chains, rules. It takes
// the input of iptables-restore --noflush, and is as strict.
type kernel map[string]map[string][]string

func newKernel() kernel {
	k := kernel{}
	for table, chains := range map[string]string{nat: "PREROUTING INPUT OUTPUT POSTROUTING", filter: "INPUT FORWARD OUTPUT"} {
		k[table] = map[string][]string{}
		for _, c := range strings.Fields(chains) {
			k[table][c] = nil
		}
	}
	return k
}

func (k kernel) restore(text []byte) error {
	var table string
	var now map[string][]string
	for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		bad := func(why string) error { return fmt.Errorf("line %d failed: %s: %q", i+1, why, line) }
		first, rest, _ := strings.Cut(line, " ")
		chain, rule, _ := strings.Cut(rest, " ")
		switch {
		case line[0] == '*':
			table, now = line[1:], map[string][]string{}
			for c, rs := range k[table] {
				now[c] = slices.Clone(rs)
			}
			continue
		case line[0] == ':':
			now[first[1:]] = nil
			if len(first) > 1+maxName {
				return bad("the name is too long")
			}
			continue
		case line == "COMMIT":
			if err := whole(now); err != nil {
				return err
			}
			k[table] = now
			continue
		}
		if _, ok := now[chain]; !ok {
			return bad("no such chain")
		}
		switch first {
		case "-A":
			now[chain] = append(now[chain], rule)
		case "-I":
			now[chain] = slices.Insert(now[chain], 0, strings.TrimPrefix(rule, "1 "))
		case "-D":
			at := slices.Index(now[chain], rule)
			if at < 0 {
				return bad("no such rule")
			}
			now[chain] = slices.Delete(now[chain], at, at+1)
		case "-X":
			if len(now[chain]) > 0 {
				return bad("the chain is not empty")
			}
			delete(now, chain)
		default:
			return bad("what?")
		}
	}
	return nil
}

// whole tells a rule that leads to no chain.
func whole(chains map[string][]string) error {
	for c, rules := range chains {
		for _, r := range rules {
			to := target(r)
			if _, ok := chains[to]; !ok && strings.HasPrefix(to, "NODEAGENT-") {
				return fmt.Errorf("%s leads to %s, which is not there", c, to)
			}
		}
	}
	return nil
}

// save prints a table as iptables-save does.
func (k kernel) save(table string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Generated\n*%s\n", table)
	for _, c := range slices.Sorted(maps.Keys(k[table])) {
		policy := "ACCEPT"
		if strings.Contains(c, "-") {
			policy = "-"
		}
		fmt.Fprintf(&b, ":%s %s [0:0]\n", c, policy)
	}
	for _, c := range slices.Sorted(maps.Keys(k[table])) {
		rules := k[table][c]
		if anyOrder(c) { // which two kernels need not agree about
			rules = slices.Sorted(slices.Values(rules))
		}
		for _, r := range rules {
			fmt.Fprintf(&b, "-A %s %s\n", c, r)
		}
	}
	return b.String() + "COMMIT\n"
}

func (k kernel) String() string { return k.save(nat) + k.save(filter) }
