package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// packet is the first one of a connection on its way through the rules.
type packet struct {
	src, dst netip.Addr
	proto    string
	dport    int
	mark     uint32
	dnat     bool
	masked   bool
}

// fate is where a packet can end: "served", "refused", "dropped" or "".
type fate struct {
	what   string
	to     netip.AddrPort
	masked bool
}

// tracer walks the text of rules, as the kernel would. Where dice are thrown it
// goes both ways, and counts how likely each is, and how many rules all ways meet.
type tracer struct {
	k     kernel
	local []netip.Addr // the node's addresses
	knows map[string]netip.Addr
	sets  map[string]bool // lists that some way wrote into
	steps int
	fates map[fate]float64
	read  map[string]*rule // rules that were met
}

func (t *tracer) rule(text string) *rule {
	r := t.read[text]
	if r == nil {
		r = parseRule(text)
		t.read[text] = r
	}
	return r
}

func newTracer(k kernel) *tracer {
	return &tracer{k: k, local: nodeAddr, read: map[string]*rule{}}
}

// trace returns how likely each fate of a packet is.
func (t *tracer) trace(p packet, fromNode bool) map[fate]float64 {
	t.fates, t.sets = map[fate]float64{}, map[string]bool{}
	first := "PREROUTING"
	if fromNode {
		first = "OUTPUT"
	}
	t.walk(nat, first, p, 1, func(p packet, chance float64, verdict string) {
		second := "FORWARD"
		switch {
		case fromNode:
			second = "OUTPUT"
		case slices.Contains(t.local, p.dst):
			second = "INPUT"
		}
		t.walk(filter, second, p, chance, func(p packet, chance float64, verdict string) {
			if verdict != "" {
				t.fates[fate{what: verdict}] += chance
				return
			}
			t.walk(nat, "POSTROUTING", p, chance, func(p packet, chance float64, verdict string) {
				f := fate{masked: p.masked}
				if p.dnat {
					f.what, f.to = "served", netip.AddrPortFrom(p.dst, uint16(p.dport))
				}
				t.fates[f] += chance
			})
		})
	})
	return t.fates
}

// walk goes through a chain of the kernel's own.
func (t *tracer) walk(table, chain string, p packet, chance float64, then func(packet, float64, string)) {
	for p, chance := range t.pass(table, chain, map[packet]float64{p: chance}, 0, then) {
		then(p, chance, "")
	}
}

// pass sends packets through a chain, and returns those that come back from it, each with
// how likely that is: so ways that come together again are one.
func (t *tracer) pass(table, chain string, in map[packet]float64, calls int, then func(packet, float64, string)) map[packet]float64 {
	rules, ok := t.k[table][chain]
	if !ok {
		panic("no chain " + chain)
	}
	if calls > 12 {
		panic("the kernel would refuse so many calls")
	}
	back := map[packet]float64{}
	for _, text := range rules {
		r, next := t.rule(text), map[packet]float64{}
		if len(in) > 0 {
			t.steps++
		}
		for p, chance := range in {
			share := t.matches(r, p)
			if share < 1 {
				next[p] += chance * (1 - share)
			}
			if share == 0 {
				continue
			}
			chance *= share
			if r.list != "" && r.set {
				t.sets[r.list] = true
			}
			if to, ok := t.ends(r, p, chance, then); ok {
				continue
			} else if r.target == "RETURN" {
				back[p] += chance
			} else if r.target == "MARK" || r.target == "" {
				next[to] += chance
			} else {
				deeper, after := calls+1, next
				if r.goes {
					deeper, after = calls, back
				}
				for p, chance := range t.pass(table, r.target, map[packet]float64{p: chance}, deeper, then) {
					after[p] += chance
				}
			}
		}
		in = next
	}
	for p, chance := range in {
		back[p] += chance
	}
	return back
}

// ends tells then of a packet that a rule takes out of the table; else it returns what
// the rule makes of it.
func (t *tracer) ends(r *rule, p packet, chance float64, then func(packet, float64, string)) (packet, bool) {
	switch r.target {
	case "MARK":
		p.mark = p.mark&^r.markMask ^ r.markValue
		return p, false
	case "MASQUERADE":
		p.masked = true
		then(p, chance, "")
	case "DNAT":
		p.dst, p.dport, p.dnat = r.to.Addr(), int(r.to.Port()), true
		then(p, chance, "")
	case "DROP":
		then(p, chance, "dropped")
	case "ACCEPT":
		then(p, chance, "")
	case "REJECT":
		then(p, chance, "refused")
	default:
		return p, false
	}
	return p, true
}

// rule is one in a form that can be asked.
type rule struct {
	src, dst             *mask
	notDst               bool
	proto                string
	first, last          int
	srcLocal, dstLocal   bool
	notLocal             bool
	state                string
	share                float64
	list                 string
	set                  bool
	markNot              bool
	markIs, markOf       uint32
	target               string
	goes                 bool
	markValue, markMask  uint32
	to                   netip.AddrPort
	tcpReset, randomized bool
}

// mask matches addresses, also by bits that are not the first.
type mask struct{ value, bits []byte }

func (m *mask) has(a netip.Addr) bool {
	b := a.AsSlice()
	if len(b) != len(m.bits) {
		return false
	}
	for i := range b {
		if b[i]&m.bits[i] != m.value[i] {
			return false
		}
	}
	return true
}

func parseMask(s string) *mask {
	a, m, _ := strings.Cut(s, "/")
	addr := netip.MustParseAddr(a)
	out := &mask{value: addr.AsSlice()}
	if n, err := strconv.Atoi(m); err == nil {
		out.bits = make([]byte, len(out.value))
		for i := range n {
			out.bits[i/8] |= 0x80 >> (i % 8)
		}
	} else {
		out.bits = netip.MustParseAddr(m).AsSlice()
	}
	return out
}

func hex(s string) (value, mask uint32) {
	v, m, _ := strings.Cut(s, "/")
	a, err1 := strconv.ParseUint(v, 0, 32)
	b, err2 := strconv.ParseUint(m, 0, 32)
	if err1 != nil || err2 != nil {
		panic(s)
	}
	return uint32(a), uint32(b)
}

// parseRule panics at what it does not know: nothing may pass unseen.
func parseRule(text string) *rule {
	ws := tokens(text)
	r := &rule{last: 65535, share: 1}
	next := func() string {
		w := ws[0]
		ws = ws[1:]
		return w
	}
	not := false
	for len(ws) > 0 {
		switch w := next(); w {
		case "!":
			not = true
			continue
		case "-m":
			next()
		case "--comment", "--mode":
			next()
		case "-s":
			r.src = parseMask(next())
		case "-d":
			r.dst, r.notDst = parseMask(next()), not
		case "-p":
			r.proto = next()
		case "--dport":
			a, b, ok := strings.Cut(next(), ":")
			r.first, _ = strconv.Atoi(a)
			if r.last = r.first; ok {
				r.last, _ = strconv.Atoi(b)
			}
		case "--src-type":
			r.srcLocal = next() == "LOCAL"
		case "--dst-type":
			r.dstLocal, r.notLocal = next() == "LOCAL" && !not, not
		case "--ctstate":
			r.state = next()
		case "--probability":
			r.share, _ = strconv.ParseFloat(next(), 64)
		case "--update", "--reap", "--rsource":
		case "--set":
			r.set = true
		case "--seconds":
			next()
		case "--mask":
			next()
		case "--name":
			r.list = next()
		case "--mark":
			r.markIs, r.markOf = hex(next())
			r.markNot = not
		case "-j", "-g":
			r.target, r.goes = next(), w == "-g"
		case "--set-xmark":
			r.markValue, r.markMask = hex(next())
		case "--to-destination":
			r.to = netip.MustParseAddrPort(next())
		case "--reject-with":
			r.tcpReset = next() == "tcp-reset"
		case "--random-fully":
			r.randomized = true
		default:
			panic(fmt.Sprintf("%q in %q", w, text))
		}
		not = false
	}
	if r.tcpReset && r.proto != "tcp" {
		panic("a reset of what is not TCP: " + text)
	}
	if r.target == "DNAT" && r.proto == "" {
		panic("a port without a protocol: " + text)
	}
	return r
}

func tokens(s string) []string {
	var out []string
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		var w string
		if s[0] == '"' {
			w, s, _ = strings.Cut(s[1:], `"`)
		} else {
			w, s, _ = strings.Cut(s, " ")
		}
		out = append(out, w)
	}
	return out
}

// matches is how likely a rule matches.
func (t *tracer) matches(r *rule, p packet) float64 {
	isLocal := func(a netip.Addr) bool { return slices.Contains(t.local, a) || a.IsLoopback() }
	switch {
	case r.src != nil && !r.src.has(p.src),
		r.dst != nil && r.dst.has(p.dst) == r.notDst,
		r.proto != "" && r.proto != p.proto,
		p.dport < r.first || p.dport > r.last,
		r.srcLocal && !isLocal(p.src),
		r.dstLocal && !isLocal(p.dst), r.notLocal && isLocal(p.dst),
		r.state == "DNAT" && !p.dnat,
		strings.Contains(r.state, "ESTABLISHED"), r.state == "INVALID",
		r.markOf != 0 && (p.mark&r.markOf == r.markIs) == r.markNot,
		r.list != "" && !r.set && t.knows[r.list] != p.src:
		return 0
	}
	return r.share
}
