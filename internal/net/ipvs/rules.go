package ipvs

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// fam is what differs between the families.
type fam struct {
	v6      bool
	command string
	refuse  string // how what is not TCP is refused
}

var (
	ipv4 = fam{false, "iptables", "icmp-port-unreachable"}
	ipv6 = fam{true, "ip6tables", "icmp6-port-unreachable"}
)

func families() []fam {
	if hasIPv6() {
		return []fam{ipv4, ipv6}
	}
	return []fam{ipv4}
}

func (f fam) of(ps []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range ps {
		if p.Addr().Is6() == f.v6 {
			out = append(out, p.Masked())
		}
	}
	return out
}

// chainPrefix begins the names of our chains.
const chainPrefix = "NODEAGENT-IPVS-"

// chain is one chain of ours; a jump leads to it from one of the kernel's own.
type chain struct {
	table, name string
	rules       []string
}

type jump struct{ table, from, rule string }

func (f fam) match(s set, where string) string {
	return "-m set --match-set " + s.name(f.v6) + " " + where
}
func (f fam) lacks(s set, where string) string {
	return "-m set ! --match-set " + s.name(f.v6) + " " + where
}

const (
	called = "dst,dst" // the address and port that is called
	isNew  = "-m conntrack --ctstate NEW"
)

// chains are all rules that there are: they look into sets, and are the same
// however many services there are.
//
// What comes in is served by IPVS when it is about to be delivered to the node, and
// what the node sends when it is about to leave, right after the table nat: so the
// table mangle is where both can be told what they need before, and filter sees of
// the node's own packets only those that no server took.
func (b *Backend) chains(f fam) []chain {
	bit := fmt.Sprintf("%#x", b.bit)
	setBit := "-j MARK --set-xmark " + bit + "/" + bit
	notAllowed := join(f.match(gated, called), f.lacks(ranges, called+",src"), "-j DROP")
	pods := b.fromPods(f)
	return []chain{
		{"mangle", chainPrefix + "IN", []string{
			join(isNew, f.match(masq, called), setBit),
			join(isNew, f.match(cluster, called), "-j "+chainPrefix+"OUTSIDERS"),
			join(f.match(local, called), "-j "+chainPrefix+"LOCAL"),
		}},
		{"mangle", chainPrefix + "OUTSIDERS", append(pods, setBit)},
		{"mangle", chainPrefix + "LOCAL", append(pods, "-j SET --map-set "+local.name(f.v6)+" "+called+" --map-mark")},
		{"mangle", chainPrefix + "OUT", []string{join(f.match(notNode, called), "-j DROP"), join(f.match(served, called), setBit)}},
		{"filter", chainPrefix + "CLOSED", []string{
			notAllowed,
			join(f.match(refuse, called), "-g "+chainPrefix+"REFUSE"),
			join(f.match(drop, called), "-j DROP"),
			join(f.match(inside, called), "-j "+chainPrefix+"INSIDE"),
			join(f.match(served, called), "-j RETURN"),
			join(f.match(ips, "dst"), "-g "+chainPrefix+"REFUSE"),
		}},
		{"filter", chainPrefix + "INSIDE", append(pods, "-m addrtype --src-type LOCAL -j RETURN", "-j DROP")},
		{"filter", chainPrefix + "REFUSE", []string{
			"-p tcp -j REJECT --reject-with tcp-reset", // errors of ICMP are limited in number
			"-j REJECT --reject-with " + f.refuse,
		}},
		{"filter", chainPrefix + "FORWARD", b.forwarded()},
		{"nat", chainPrefix + "POSTROUTING", []string{
			join(f.match(hairpin, "src,dst"), masquerade),
			"-m mark ! --mark " + bit + "/" + bit + " -j RETURN",
			"-j MARK --set-xmark " + bit + "/0x0",
			masquerade,
		}},
	}
}

// forwarded does as the other modes. What belongs to no connection would not be
// translated back, and who gets it would reset a connection that is sound.
func (b *Backend) forwarded() []string {
	out := []string{"-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"}
	if b.cfg.KeepInvalid {
		return out
	}
	return append([]string{"-m conntrack --ctstate INVALID -j DROP"}, out...)
}

// fromPods lead packets of pods back.
func (b *Backend) fromPods(f fam) []string {
	var out []string
	for _, p := range f.of(b.cfg.Pods) {
		if p.Bits() > 0 { // else it is not printed
			out = append(out, "-s "+p.String()+" -j RETURN")
		} else {
			out = append(out, "-j RETURN")
		}
	}
	for _, name := range b.cfg.PodInterfaces {
		out = append(out, "-i "+name+" -j RETURN")
	}
	return slices.Clip(out)
}

const masquerade = "-j MASQUERADE --random-fully"

func join(parts ...string) string { return strings.Join(parts, " ") }

// jumps come first in the kernel's own chains.
func jumps() []jump {
	to := func(why, name string) string {
		return `-m comment --comment "nodeagent: ` + why + `" -j ` + chainPrefix + name
	}
	return []jump{
		{"mangle", "INPUT", to("service addresses", "IN")},
		{"mangle", "OUTPUT", join(isNew, to("service addresses", "OUT"))},
		{"filter", "INPUT", join(isNew, to("closed service addresses", "CLOSED"))},
		{"filter", "OUTPUT", join(isNew, to("closed service addresses", "CLOSED"))},
		{"filter", "FORWARD", to("answers of services", "FORWARD")},
		{"nat", "POSTROUTING", to("masquerade for services", "POSTROUTING")},
	}
}

var tables = []string{"mangle", "filter", "nat"}

// inForce is what iptables-save printed, as far as it is ours.
type inForce struct {
	chains map[string]map[string][]string // by table and name
	ways   map[string][]jump              // rules of other chains that lead to ours, by table
}

// parseSave reads the output of iptables-save.
func parseSave(text string) inForce {
	out := inForce{map[string]map[string][]string{}, map[string][]jump{}}
	table := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "*"):
			table = line[1:]
			out.chains[table] = map[string][]string{}
		case strings.HasPrefix(line, ":"+chainPrefix):
			name, _, _ := strings.Cut(line[1:], " ")
			out.chains[table][name] = nil
		case strings.HasPrefix(line, "-A "):
			name, rule, _ := strings.Cut(line[3:], " ")
			if strings.HasPrefix(name, chainPrefix) {
				out.chains[table][name] = append(out.chains[table][name], rule)
			} else if strings.Contains(rule, "-j "+chainPrefix) || strings.Contains(rule, "-g "+chainPrefix) {
				out.ways[table] = append(out.ways[table], jump{table, name, rule})
			}
		}
	}
	return out
}

// patch makes the input of iptables-restore that puts our rules right, table by
// table, or nothing.
func (b *Backend) patch(f fam, have inForce) string {
	var out strings.Builder
	all := b.chains(f)
	for _, table := range tables {
		var mine []chain
		right := true
		for _, c := range all {
			if c.table != table {
				continue
			}
			mine = append(mine, c)
			rules, there := have.chains[table][c.name]
			right = right && there && strings.Join(rules, "\n") == strings.Join(c.rules, "\n")
		}
		var want []jump
		for _, j := range jumps() {
			if j.table == table {
				want = append(want, j)
			}
		}
		if right && len(have.chains[table]) == len(mine) && sameJumps(have.ways[table], want) {
			continue
		}
		writePatch(&out, table, mine, have.ways[table], want)
	}
	return out.String()
}

func sameJumps(have, want []jump) bool {
	if len(have) != len(want) {
		return false
	}
	left := map[jump]bool{}
	for _, j := range want {
		left[j] = true
	}
	for _, j := range have {
		if !left[j] {
			return false
		}
		delete(left, j)
	}
	return true
}

// writePatch writes one table whole: chains that it names are emptied first.
func writePatch(out *strings.Builder, table string, mine []chain, have, want []jump) {
	fmt.Fprintf(out, "*%s\n", table)
	for _, c := range mine {
		fmt.Fprintf(out, ":%s - [0:0]\n", c.name)
	}
	for _, c := range mine {
		for _, r := range c.rules {
			fmt.Fprintf(out, "-A %s %s\n", c.name, r)
		}
	}
	for _, j := range have {
		fmt.Fprintf(out, "-D %s %s\n", j.from, j.rule)
	}
	for _, j := range want {
		fmt.Fprintf(out, "-I %s 1 %s\n", j.from, j.rule)
	}
	out.WriteString("COMMIT\n")
}

// undo makes the input that takes all our rules away.
func undo(have inForce) string {
	var out strings.Builder
	for _, table := range tables {
		if len(have.chains[table])+len(have.ways[table]) == 0 {
			continue
		}
		fmt.Fprintf(&out, "*%s\n", table)
		for name := range have.chains[table] {
			fmt.Fprintf(&out, ":%s - [0:0]\n", name)
		}
		for _, j := range have.ways[table] {
			fmt.Fprintf(&out, "-D %s %s\n", j.from, j.rule)
		}
		for name := range have.chains[table] {
			fmt.Fprintf(&out, "-X %s\n", name)
		}
		out.WriteString("COMMIT\n")
	}
	return out.String()
}
