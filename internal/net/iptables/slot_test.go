package iptables

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nodeagent/internal/net"
	. "nodeagent/internal/net/nettest"
)

// slotOf is the chain that has an endpoint of an entry.
func slotOf(l *layout, e *net.Entry, i int) string {
	t := l.slots[i]
	n := t.root
	for n.kids != nil {
		name, _ := t.step(e.Addr, n.depth)
		n = n.kids[name]
	}
	return n.name
}

// ofMany is a model with n services of a port, of so many endpoints each.
func ofMany(n int, ends func(i int) int) *net.Model {
	m := net.NewModel(thisNode)
	for i := range n {
		comes(m, i, ends(i))
	}
	m.Take()
	return m
}

// comes sets a service with so many endpoints.
func comes(m *net.Model, i, ends int) {
	name := fmt.Sprintf("s%d", i)
	m.SetService(Service(name, []string{fmt.Sprintf("10.96.%d.%d", i/250, i%250+1)}, Port("p", corev1.ProtocolTCP, 80, 0)))
	m.SetSlice(endsOf(name, i, ends, 8080))
}

func endsOf(name string, i, n int, port int32) *discoveryv1.EndpointSlice {
	parts := []func(*discoveryv1.EndpointSlice){To("p", corev1.ProtocolTCP, port)}
	for j := range n {
		parts = append(parts, At(fmt.Sprintf("10.%d.%d.%d", i/250, i%250, j+1), ""))
	}
	return Slice(name+"-1", name, parts...)
}

// TestShares: each endpoint has the same share, however many others the service has and
// its neighbours have; who is no pod is masqueraded, and so only if it was served.
func TestShares(t *testing.T) {
	m := ofMany(100, func(i int) int { return i % (maxSlots + 3) })
	p := onPaper(t, Config{})
	p.sync(t, NFT, m.Table())
	tr := newTracer(p.kernels[0])
	for _, e := range m.Table().Sorted() {
		for _, from := range []string{"10.0.9.9", "192.168.0.9"} {
			to := packet{src: netip.MustParseAddr(from), dst: e.Addr.IP, proto: "tcp", dport: 80}
			n := len(e.Cluster)
			fates := tr.trace(to, false)
			if len(fates) != max(n, 1) {
				t.Errorf("%s of %d endpoints: %v", e.Name(), n, fates)
			}
			for f, share := range fates {
				if n == 0 && f.what != "refused" || n > 0 && (f.what != "served" || f.masked != (from[0] == '1' && from[1] == '9') || math.Abs(share-1/float64(n)) > 1e-6) {
					t.Errorf("%s of %d endpoints, from %s: %v %g", e.Name(), n, from, f, share)
				}
			}
			to.dport = 81
			if fates := tr.trace(to, false); fates[fate{what: "refused"}] != 1 {
				t.Errorf("a port of %s that it does not have: %v", e.Name(), fates)
			}
			to.dst = netip.MustParseAddr("10.97.0.1")
			if fates := tr.trace(to, false); fates[fate{}] != 1 {
				t.Errorf("an address that is nobody's: %v", fates)
			}
		}
	}
}

// TestWalk: what the kernel walks from a hook with each change is a rule an endpoint, the
// ways there, and nothing else that grows; none of them asks for more than addresses and
// ports. Whose they are stands where nothing leads to.
func TestWalk(t *testing.T) {
	const n, each = 2000, 5
	m := ofMany(n, func(int) int { return each })
	p := onPaper(t, Config{})
	p.sync(t, NFT, m.Table())
	chains := p.kernels[0][nat]
	reached := map[string]bool{}
	var walk func(string)
	walk = func(name string) {
		if reached[name] {
			return
		}
		reached[name] = true
		for _, r := range chains[name] {
			if to := target(r); chains[to] != nil {
				walk(to)
			}
		}
	}
	walk("PREROUTING")
	rules, dear := 0, 0
	for name := range reached {
		rules += len(chains[name])
		for _, r := range chains[name] {
			if strings.Contains(r, "-m comment") || strings.Contains(r, "-m statistic") {
				dear++
			}
		}
	}
	if most := n * each * 4 / 3; rules < n*each || rules > most {
		t.Errorf("%d services of %d endpoints: %d rules are walked, and %d at most", n, each, rules, most)
	}
	if dear > 2*maxSlots {
		t.Errorf("%d of them ask for the dice or have a comment", dear)
	}
	told := 0
	for name, rules := range chains {
		if !reached[name] {
			told += strings.Count(strings.Join(rules, "\n"), `/s`) // default/s7:p
		}
	}
	if told != n {
		t.Errorf("of %d services %d are told by name", n, told)
	}
}

// TestSmallChange: an endpoint that is replaced by another concerns a few chains of one
// table, each of few rules.
func TestSmallChange(t *testing.T) {
	m := ofMany(2000, func(int) int { return 5 })
	p := onPaper(t, Config{})
	p.sync(t, NFT, m.Table())
	s := endsOf("s700", 700, 5, 8080)
	s.Endpoints[2].Addresses[0] = "10.9.255.255"
	m.SetSlice(s)
	d := m.Take()
	p.layouts[0].apply(&d)
	ps := patches(p.layouts[0], false)
	if n := len(ps[0].write); n == 0 || n > 5 || ps[0].rules() > 2*n || len(ps[0].drop) > 0 || !ps[1].isEmpty() {
		t.Errorf("one endpoint of 10 000 costs %d chains of %d rules in nat, and %d in filter", n, ps[0].rules(), ps[1].rules())
	}
	s.Endpoints = append(s.Endpoints, endsOf("", 2500, 1, 8080).Endpoints...) // the last one by its address
	m.SetSlice(s)
	d = m.Take()
	p.layouts[0].apply(&d)
	if ps := patches(p.layouts[0], false); ps[0].rules() != 1 {
		t.Errorf("an endpoint more is written as %s", job(ps).text())
	}
	m.SetService(Service("more", []string{"10.96.9.9"}, Port("p", corev1.ProtocolTCP, 80, 0)))
	m.SetSlice(endsOf("more", 2300, 3, 8080))
	d = m.Take()
	p.layouts[0].apply(&d)
	if ps := patches(p.layouts[0], false); ps[0].rules() != 4 { // and its name
		t.Errorf("a service more is written as %s", job(ps).text())
	}
	s.Endpoints = slices.Delete(s.Endpoints[:5], 2, 3) // without the two that sort last
	m.SetSlice(s)
	m.DeleteService(net.Key{Namespace: "default", Name: "s1234"})
	d = m.Take()
	p.layouts[0].apply(&d)
	// The kernel walks no rules where none comes.
	if ps := patches(p.layouts[0], false); ps[0].rules() != 1+6 || ps[1].rules() != 1 || strings.Contains(string(job(ps).text()), "-A ") {
		t.Errorf("two endpoints less, and a service, are written as %s", job(ps).text())
	}
}

// TestOnlyTakenAway: a service with node ports that goes takes rules and chains with it, and
// needs no other: so the kernel has nothing to walk through.
func TestOnlyTakenAway(t *testing.T) {
	m := ofMany(20, func(int) int { return 3 })
	turned(m, 0, 20, true, func(int) int32 { return 80 })
	m.SetServiceCIDR(servicesOf("10.96.0.0/12"))
	m.Take()
	p := onPaper(t, Config{})
	p.sync(t, NFT, m.Table())
	m.DeleteService(net.Key{Namespace: "default", Name: "s7"})
	d := m.Take()
	var all [][]patch
	for _, ps := range p.layouts[0].rounds(&d, false) {
		all = append(all, ps)
		if text := string(job(ps).text()); strings.Contains(text, "-A ") || !strings.Contains(text, "-X ") {
			t.Errorf("a service less is written as %s", text)
		}
	}
	for _, ps := range all {
		p.put(t, 0, NFT, ps)
	}
	if r := p.sync(t, NFT, m.Table()); r != (net.Report{}) {
		t.Errorf("left to do are %+v", r)
	}
}

// TestReadsFew: to take a rule away by its text the program reads all chains that it is
// told of. So where that is much, what goes one by one goes last, by runs of its own, and
// of these none reads more than it may.
func TestReadsFew(t *testing.T) {
	const n = 2000
	replaced := func(m *net.Model, many int) {
		for k := range many {
			i := k * 7 % n
			s := endsOf(fmt.Sprintf("s%d", i), i, 5, 8080)
			s.Endpoints[k%5].Addresses[0] = fmt.Sprintf("10.9.%d.%d", 200+k/250, k%250)
			m.SetSlice(s)
		}
	}
	for _, c := range []struct {
		what      string
		change    func(*net.Model)
		runs      string // what the runs do: + rules come, - some go one by one
		atMost    int    // rules that the program is given
		few, many int    // chains that each run with - is told of
	}{
		{"an endpoint replaced", func(m *net.Model) { replaced(m, 1) }, "±", 10, 1, 5},
		{"endpoints replaced", func(m *net.Model) { replaced(m, 250) }, "+--", 2000, 100, maxRead / 30},
		{"an endpoint replaced, and services more", func(m *net.Model) {
			replaced(m, 1)
			for i := range 400 {
				comes(m, n+i, 5)
			}
		}, "+-", 2500, 1, 5},
		{"an endpoint replaced, and chains more", func(m *net.Model) {
			replaced(m, 1)
			for i := range 20 {
				m.SetService(Service(fmt.Sprintf("s%d", n+i), []string{fmt.Sprintf("10.97.0.%d", i+1)}, Port("p", corev1.ProtocolTCP, 80, int32(30100+i))))
				m.SetSlice(endsOf(fmt.Sprintf("s%d", n+i), n+i, 5, 8080))
			}
		}, "++-", 500, 1, 5}, // once in filter
		{"services less", func(m *net.Model) {
			for i := range 60 {
				m.DeleteService(net.Key{Namespace: "default", Name: fmt.Sprintf("s%d", i*20)})
			}
		}, "-", 400, 100, maxRead / 30},
	} {
		t.Run(c.what, func(t *testing.T) {
			m := ofMany(n, func(int) int { return 5 })
			m.SetServiceCIDR(servicesOf("10.96.0.0/12"))
			m.Take()
			p := onPaper(t, Config{})
			p.sync(t, NFT, m.Table())
			c.change(m)
			d := m.Take()
			ps := p.layouts[0].rounds(&d, false)[0]
			runs, given := "", 0
			for _, step := range steps(NFT, ps) {
				for _, r := range step {
					comes, goes, read := false, 0, 0
					for _, x := range r[0].write {
						given += x.given()
						comes = comes || len(x.came()) > 0
						goes += len(x.gone())
						read += len(p.kernels[0][nat][x.name])
					}
					told := len(r[0].write)
					switch {
					case goes == 0:
						runs += "+"
					case comes:
						runs += "±"
					default:
						runs += "-"
					}
					if goes > 0 && (told < c.few || told > c.many || len(step) > 1 || read > maxRead+told) {
						t.Errorf("a run that takes %d rules away is told of %d chains, and reads %d rules", goes, told, read)
					}
				}
			}
			if runs != c.runs || given > c.atMost {
				t.Errorf("the runs are %s, and not %s; they are given %d rules", runs, c.runs, given)
			}
			p.put(t, 0, NFT, ps)
			if r := p.sync(t, NFT, m.Table()); r != (net.Report{}) {
				t.Errorf("left to do are %+v", r)
			}
		})
	}
}

func servicesOf(cidrs ...string) *networkingv1.ServiceCIDR {
	return &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: cidrs}}
}

// TestRangesRefuse: where it is known of which ranges cluster IPs are drawn, no service has
// a rule of its own in the table filter, and one that comes changes nothing there.
func TestRangesRefuse(t *testing.T) {
	m := ofMany(10, func(int) int { return 2 })
	p := onPaper(t, Config{})
	p.sync(t, NFT, m.Table())
	unknownIPs := func() int { return len(p.kernels[0][filter]["NODEAGENT-UNKNOWN"]) }
	if n := unknownIPs(); n != 10 {
		t.Errorf("of 10 cluster IPs %d refuse other ports", n)
	}
	m.SetServiceCIDR(servicesOf("10.96.0.0/12"))
	if d := m.Take(); !d.Ranges {
		t.Fatalf("%+v", d)
	}
	p.sync(t, NFT, m.Table())
	if n := unknownIPs(); n != 0 {
		t.Errorf("behind a range %d cluster IPs have rules", n)
	}
	m.SetService(Service("more", []string{"10.96.8.8"}, Port("p", corev1.ProtocolTCP, 80, 0)))
	m.SetSlice(endsOf("more", 9, 2, 8080))
	d := m.Take()
	p.layouts[0].apply(&d)
	if ps := patches(p.layouts[0], false); ps[0].isEmpty() || !ps[1].isEmpty() {
		t.Errorf("a service more changes %+v in nat and %+v in filter", ps[0], ps[1])
	}
}

// TestHeldOnPaper: what is read of the rules is what the table says of each address, also
// where a chain's name alone tells the port.
func TestHeldOnPaper(t *testing.T) {
	m := ofMany(300, func(i int) int { return 1 + i%7 })
	m.SetService(Service("other", []string{"10.96.7.7"}, Port("p", corev1.ProtocolUDP, 53, 0)))
	m.SetSlice(Slice("other-1", "other", To("p", corev1.ProtocolUDP, 5353), At("10.0.0.77", "")))
	m.Take()
	p := onPaper(t, Config{})
	p.sync(t, NFT, m.Table())
	rules, short := map[string][]string{}, 0
	for _, table := range tables {
		for chain, rs := range p.kernels[0][table] {
			if p.ours(chain) {
				rules[chain] = rs
			}
			for _, r := range rs {
				if strings.Contains(r, "DNAT --to") && !strings.Contains(r, "--dport") {
					short++
				}
			}
		}
	}
	if short == 0 {
		t.Fatal("each rule has a port")
	}
	out := map[string]*net.Held{}
	held(rules, ipv4, p.ours, out)
	for _, e := range m.Table().Sorted() {
		h := out[e.Addr.String()]
		if h == nil || h.Service != e.Name()+" cluster IP" {
			t.Fatalf("%s is held as %+v, of %d addresses", e.Name(), h, len(out))
		}
		slices.SortFunc(h.Endpoints, netip.AddrPort.Compare)
		if !slices.Equal(h.Endpoints, e.Cluster) {
			t.Errorf("%s has %v, and read is %v", e.Name(), e.Cluster, h.Endpoints)
		}
	}
}

// turned changes n services between having a node port and not.
func turned(m *net.Model, from, to int, nodePort bool, port func(i int) int32) {
	for i := from; i < to; i++ {
		np := int32(0)
		if nodePort {
			np = int32(30000 + i)
		}
		m.SetService(Service(fmt.Sprintf("s%d", i), []string{fmt.Sprintf("10.96.%d.%d", i/250, i%250+1)}, Port("p", corev1.ProtocolTCP, port(i), np)))
	}
}

// lost writes what is to be written run by run, and tells how many of some entries are
// served nowhere after each.
func lost(t *testing.T, k kernel, all [][]job, entries []*net.Entry) (runs, worst, bad int) {
	t.Helper()
	for _, step := range all {
		for _, r := range step {
			runs++
			must(t, k.restore(r.text()))
			tr, n := newTracer(k), 0
			for _, e := range entries {
				fates := tr.trace(packet{src: pods[0].Addr().Next(), dst: e.Addr.IP, proto: "tcp", dport: int(e.Addr.Port)}, false)
				for f, share := range fates {
					if f.what != "served" && share > 1e-6 {
						n++
						break
					}
				}
			}
			if n > 0 {
				bad++
			}
			worst = max(worst, n)
		}
	}
	return runs, worst, bad
}

// TestNeverInNone: some services go from one kind of tree to the other, and some stay
// where they are, so that no tree loses its branches.
func TestNeverInNone(t *testing.T) {
	const n = 900
	for _, c := range []struct {
		what       string
		was        bool
		port       func(int) int32
		from, to   int
		more, also int
	}{
		{"800 of 900 lose their node port", true, func(int) int32 { return 80 }, 0, 800, 0, 0},
		{"800 of 900 get one", false, func(int) int32 { return 80 }, 0, 800, 0, 0},
		{"450 of 900 lose it, ports all over", true, func(i int) int32 { return int32(1 + i*71%60000) }, 0, 450, 0, 0},
		{"20 of 900 lose it, and others change", true, func(int) int32 { return 80 }, 0, 20, 20, 900},
	} {
		t.Run(c.what, func(t *testing.T) {
			m := ofMany(n, func(int) int { return 5 })
			turned(m, 0, n, c.was, c.port)
			m.Take()
			p := onPaper(t, Config{})
			p.sync(t, NFT, m.Table())
			turned(m, c.from, c.to, !c.was, c.port)
			for i := c.more; i < c.also; i++ {
				m.SetSlice(endsOf(fmt.Sprintf("s%d", i), i, 4, 8080))
			}
			d := m.Take()
			var all [][]job
			for _, ps := range p.layouts[0].rounds(&d, false) {
				all = append(all, steps(NFT, ps)...)
			}
			if len(all) < 2 {
				t.Fatalf("%d steps are not many", len(all))
			}
			var some []*net.Entry
			for i, e := range m.Table().Sorted() {
				if i%9 == 0 || i < 20 {
					some = append(some, e)
				}
			}
			if runs, worst, bad := lost(t, p.kernels[0], all, some); worst > 0 {
				t.Errorf("after %d of %d runs some of %d services are served nowhere, %d at worst", bad, runs, len(some), worst)
			}
		})
	}
}

// TestRootsTogether: however many chains there are before them, the roots of the trees and
// what leads to them are one run.
func TestRootsTogether(t *testing.T) {
	p := onPaper(t, Config{})
	p.sync(t, NFT, ofMany(1, func(int) int { return 1 }).Table())
	var tops []rewrite
	for name, rules := range p.kernels[0][nat] {
		if p.ours(name) && rank(name) >= rootRank {
			tops = append(tops, rewrite{chain: chain{nat, name, rules}})
		}
	}
	for n := range 3 * maxBatch {
		all := slices.Clone(tops)
		for i := range n {
			all = append(all, rewrite{chain: chain{nat, fmt.Sprintf("NODEAGENT-SVC-%016d", i), []string{"-j RETURN"}}})
		}
		runs := 0
		for _, step := range inOrder(patch{table: nat, write: ranked(all)}) {
			for _, r := range step {
				if slices.ContainsFunc(r[0].write, func(c rewrite) bool { return rank(c.name) >= rootRank }) {
					runs++
				}
			}
		}
		if runs != 1 {
			t.Fatalf("behind %d chains the %d at the top are written in %d runs", n, len(tops), runs)
		}
	}
}

// TestHeldBehindRange: a service without endpoints is refused by the rule of its range, and
// who explains it says so.
func TestHeldBehindRange(t *testing.T) {
	for _, cidrs := range [][]string{nil, {"10.96.0.0/12"}} {
		m := ofMany(1, func(int) int { return 0 })
		if cidrs != nil {
			m.SetServiceCIDR(servicesOf(cidrs...))
		}
		m.Take()
		p := onPaper(t, Config{})
		p.sync(t, NFT, m.Table())
		out, rules := map[string]*net.Held{}, map[string][]string{}
		for _, table := range tables {
			for chain, rs := range p.kernels[0][table] {
				if p.ours(chain) {
					rules[chain] = rs
				}
			}
		}
		held(rules, ipv4, p.ours, out)
		g := net.Ground{Mode: "iptables", Held: net.Tidy(out)}
		x := net.ExplainService(m.Facts(net.Key{Namespace: "default", Name: "s0"}), net.Loop{Mode: "iptables", Begun: true}, g)
		if got := x.Addresses[0].Kernel; got != "present" {
			t.Errorf("ranges %v: a packet to %s is refused, and explain says that the rule is %s: %+v", cidrs, x.Addresses[0].Address, got, x.Gates[4])
		}
	}
}

// met is how many rules a packet meets in nat's PREROUTING, on average over the dice, and at
// worst.
func met(k kernel, p packet) (mean float64, worst int) {
	tr := newTracer(k)
	var pass func(chain string, p packet) (float64, int, float64, packet) // until it comes back, with the chance of that
	pass = func(chain string, p packet) (mean float64, worst int, back float64, out packet) {
		chance := 1.0
		back, out = 0, p
		for _, text := range k[nat][chain] {
			if chance == 0 {
				break
			}
			mean += chance
			worst++
			r := tr.rule(text)
			share := tr.matches(r, p)
			if share == 0 {
				continue
			}
			switch r.target {
			case "DNAT":
				chance *= 1 - share
			case "RETURN":
				back += chance * share
				chance *= 1 - share
			case "MARK", "":
			default:
				m, w, b, _ := pass(r.target, p)
				mean += chance * share * m
				worst += w
				if r.goes {
					back += chance * share * b
					chance *= 1 - share
				} else {
					chance *= 1 - share + share*b
				}
			}
		}
		return mean, worst, back + chance, p
	}
	mean, worst, _, _ = pass("PREROUTING", p)
	return mean, worst
}

// TestMet: how many rules the first packet of a connection meets, in a cluster of ten
// thousand services: few to a service, and fewer elsewhere.
func TestMet(t *testing.T) {
	m := ofMany(10_000, func(i int) int { return 1 + i%5 })
	p := onPaper(t, Config{})
	p.sync(t, Legacy, m.Table())
	from := netip.MustParseAddr("10.0.99.99")
	sum, n := 0.0, 0
	for i, e := range m.Table().Sorted() {
		if i%37 == 0 {
			mean, _ := met(p.kernels[0], packet{src: from, dst: e.Addr.IP, proto: "tcp", dport: 80})
			sum, n = sum+mean, n+1
		}
	}
	if mean := sum / float64(n); mean > 70 {
		t.Errorf("to a service it meets %.1f rules on average", mean)
	} else {
		t.Logf("to a service %.1f", mean)
	}
	elsewhere := func(what string, most float64) {
		t.Helper()
		mean, _ := met(p.kernels[0], packet{src: from, dst: netip.MustParseAddr("8.8.8.8"), proto: "tcp", dport: 80})
		if mean > most {
			t.Errorf("%s, elsewhere it meets %.1f rules on average, %.0f at most", what, mean, most)
		} else {
			t.Logf("%s, elsewhere %.1f", what, mean)
		}
	}
	elsewhere("without ranges, at a port that services have", 140)
	m.SetServiceCIDR(servicesOf("10.96.0.0/12"))
	m.Take()
	p.sync(t, Legacy, m.Table())
	elsewhere("where the ranges of services are known", 10)
}
