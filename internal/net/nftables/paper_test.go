package nftables

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"nodeagent/internal/net"
	"nodeagent/internal/net/hosttest"
	"nodeagent/internal/net/nettest"
)

// paper is a backend that writes to a kernel of the test's own, which is as strict.
type paper struct {
	t      testing.TB
	cfg    Config
	b      *Backend
	els    elements
	chains map[string][]rule
	rules  map[string][]rule // of all chains, the fixed ones too
	hooks  map[nftables.ChainHook][]chain
}

func onPaper(t testing.TB, cfg Config) *paper {
	t.Helper()
	p := &paper{t: t, cfg: cfg, els: elements{}, chains: map[string][]rule{}, rules: map[string][]rule{}, hooks: map[nftables.ChainHook][]chain{}}
	b, err := New(cfg)
	must(t, err)
	for _, c := range b.fixed() {
		p.rules[c.name] = c.rules
		if c.hook != nil {
			p.hooks[*c.hook] = append(p.hooks[*c.hook], c)
		}
	}
	for _, chains := range p.hooks {
		slices.SortStableFunc(chains, func(a, b chain) int { return cmp.Compare(a.prio, b.prio) })
	}
	return p
}

// Sync does as sync, of a backend that begins.
func (p *paper) Sync(t *net.Table) int {
	var err error
	p.b, err = New(p.cfg)
	must(p.t, err)
	want := p.b.want(t, maps.Clone(p.els))
	stale, missing := differ(p.els, want)
	done := len(stale) + len(missing)
	wanted := map[string]bool{}
	for _, k := range p.b.sortedPicks() {
		wanted[k.name()] = true
		if !alike(p.chains[k.name()], p.b.rulesOf(k)) {
			done++
			p.chains[k.name()] = p.b.rulesOf(k)
		}
	}
	for name := range p.chains {
		if !wanted[name] {
			done++
			delete(p.chains, name)
		}
	}
	p.els = want
	p.whole()
	return done
}

// Apply does as apply and sweep.
func (p *paper) Apply(d *net.Diff) {
	x := p.b.changes(d)
	for _, k := range x.fresh {
		if p.chains[k.name()] != nil {
			p.t.Fatalf("chain %s is there already", k.name())
		}
		p.chains[k.name()] = p.b.rulesOf(k)
	}
	stale, missing := differ(x.have, x.want)
	for _, i := range stale {
		if p.els[i.slot] != x.have[i.slot] {
			p.t.Fatalf("an element of %s was thought to be %q and is %q", i.set, x.have[i.slot], p.els[i.slot])
		}
		delete(p.els, i.slot)
	}
	for _, i := range missing {
		if _, there := p.els[i.slot]; there {
			p.t.Fatalf("an element of %s is there already", i.set)
		}
		p.els[i.slot] = i.content
	}
	for _, k := range x.stale {
		delete(p.chains, k.name())
	}
	p.whole()
}

// whole looks for what leads to nowhere: the kernel would refuse that.
func (p *paper) whole() {
	maps.DeleteFunc(p.rules, func(name string, _ []rule) bool { return isPick(name) })
	maps.Copy(p.rules, p.chains)
	lead := func(from, to string) {
		if _, ok := p.rules[to]; !ok && to != "" && to != "drop" {
			p.t.Fatalf("%s leads to %s, which is not there", from, to)
		}
	}
	for s, c := range p.els {
		lead(s.set, c.verdict)
	}
	for name, rules := range p.rules {
		for _, r := range rules {
			for _, e := range r.exprs {
				if v, ok := e.(*expr.Verdict); ok {
					lead(name, v.Chain)
				}
			}
		}
	}
}

// Trace sends the first packet of a connection through it.
func (p *paper) Trace(from netip.Addr, to net.Address) map[nettest.End]float64 {
	ends, _ := p.trace(from, to, nil)
	return ends
}

var world = nettest.World{Node: net.Node{Name: "here", Zone: "a", Addrs: hosttest.NodeAddr}, Pods: hosttest.Pods, Ranges: ranges}

// ranges are those of services, one within another, and one that has the node in it.
var ranges = []netip.Prefix{
	netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("10.96.0.0/20"), netip.MustParsePrefix("10.98.0.0/24"),
	netip.MustParsePrefix("fd96::/112"), netip.MustParsePrefix("fd96::/108"), netip.MustParsePrefix("192.168.0.0/16"),
}

func freshPaper(t testing.TB) nettest.Paper { return onPaper(t, Config{Pods: hosttest.Pods}) }

// TestTables: whatever the history, changes leave what a backend that begins would
// write, and packets end as the oracles say.
func TestTables(t *testing.T) { world.Tables(t, freshPaper) }

// FuzzTables lets the fuzzer write the history.
func FuzzTables(f *testing.F) { world.Fuzz(f, freshPaper) }

// TestRemembered: who is remembered goes where it went, at each address and by each
// policy, also when numbers have moved, until its endpoint is gone; then it is remembered
// for another one.
func TestRemembered(t *testing.T) {
	for _, policy := range [][]func(*corev1.Service){nil, {nettest.LocalOutside}} {
		m := net.NewModel(thisNode)
		p := onPaper(t, Config{Pods: hosttest.Pods})
		p.Sync(m.Table())
		m.SetService(hosttest.ServiceOf(1, append(policy, nettest.Affinity(60))...))
		set := func(ends ...string) {
			parts := []func(*discoveryv1.EndpointSlice){nettest.To("t", corev1.ProtocolTCP, 8080)}
			for _, e := range ends {
				parts = append(parts, nettest.At(e, "here"))
			}
			m.SetSlice(nettest.Slice("s1-x", "s1", parts...))
			d := m.Take()
			p.Apply(&d)
		}
		all := []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"}
		for _, to := range []string{"10.96.0.1:80", "1.1.1.1:80", "2.2.2.1:80", "192.168.0.1:30001"} {
			for _, from := range []string{"192.168.0.9", "10.0.99.99", "192.168.0.1"} {
				set(all...)
				at := netip.MustParseAddrPort(to)
				call := func(knows clients) (map[nettest.End]float64, map[nettest.End]clients) {
					return p.trace(netip.MustParseAddr(from), net.Address{IP: at.Addr(), Port: at.Port(), Proto: net.TCP}, knows)
				}
				_, left := call(nil)
				if len(left) != len(all) {
					t.Fatalf("%s at %s: %v", from, to, left)
				}
				for end, knows := range left {
					mine := end.To.Addr().String()
					set(slices.DeleteFunc(slices.Clone(all), func(a string) bool { return a == all[0] && a != mine || a == all[1] && a != mine })...)
					if again, _ := call(knows); again[end] != 1 {
						t.Errorf("%s at %s, remembered for %s, when others went: %v", from, to, mine, again)
					}
					set(slices.DeleteFunc(slices.Clone(all), func(a string) bool { return a == mine })...)
					others, learnt := call(knows)
					if others[end] != 0 || len(others) != len(all)-1 {
						t.Errorf("%s at %s, remembered for %s, which went: %v", from, to, mine, others)
					}
					for other, now := range learnt {
						if again, _ := call(now); again[other] != 1 {
							t.Errorf("%s at %s, remembered for %s anew: %v", from, to, other.To, again)
						}
					}
					set(all...)
				}
			}
		}
	}
}
