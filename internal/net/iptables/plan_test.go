package iptables

import (
	"fmt"
	"hash/maphash"
	"math"
	"math/rand"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"nodeagent/internal/net"
	"nodeagent/internal/net/hosttest"
	. "nodeagent/internal/net/nettest"
)

var (
	pods     = hosttest.Pods
	nodeAddr = hosttest.NodeAddr
	thisNode = net.Node{Name: "here", Zone: "a", Addrs: nodeAddr}
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// paper is a backend that writes to kernels of the test's own.
type paper struct {
	*Backend
	kernels []kernel // IPv4, IPv6
}

func onPaper(t testing.TB, cfg Config) *paper {
	t.Helper()
	if cfg.Pods == nil {
		cfg.Pods = pods
	}
	b, err := New(cfg)
	must(t, err)
	return &paper{b, []kernel{newKernel(), newKernel()}}
}

// sync does as Sync, apply as Apply.
func (p *paper) sync(t testing.TB, flavour Flavour, table *net.Table) (r net.Report) {
	t.Helper()
	p.layouts = p.plan(table)
	for i, l := range p.layouts {
		seed, have := maphash.MakeSeed(), map[string]seen{}
		for _, name := range tables {
			s, err := parse(strings.NewReader(p.kernels[i].save(name)), seed, p.ours)
			must(t, err)
			have[name] = s
		}
		p.put(t, i, flavour, differ(l, table, have, seed, &r))
	}
	return r
}

func (p *paper) apply(t testing.TB, flavour Flavour, d *net.Diff) {
	t.Helper()
	for i, l := range p.layouts {
		for _, ps := range l.rounds(d, false) {
			p.put(t, i, flavour, ps)
		}
	}
}

func (p *paper) put(t testing.TB, i int, flavour Flavour, ps []patch) {
	t.Helper()
	for _, step := range steps(flavour, ps) {
		for _, r := range slices.Backward(step) { // they are side by side: in any order
			if err := p.kernels[i].restore(r.text()); err != nil {
				t.Fatalf("%v\n%s", err, r.text())
			}
		}
	}
}

// TestPartialEqualsFullOnPaper throws histories, and compares what the changes
// left with what one writes who begins.
func TestPartialEqualsFullOnPaper(t *testing.T) {
	for seed := range int64(1500) {
		dice := rand.New(rand.NewSource(seed))
		m := net.NewModel(thisNode)
		p := onPaper(t, Config{})
		p.sync(t, NFT, m.Table())
		for range 12 {
			for range 1 + dice.Intn(4) {
				change(dice, m)
			}
			d := m.Take()
			p.apply(t, NFT, &d)
		}
		full := onPaper(t, Config{})
		full.sync(t, Legacy, m.Table())
		for i := range p.kernels {
			if a, b := p.kernels[i].String(), full.kernels[i].String(); a != b {
				t.Fatalf("seed %d: changes left\n%s\na new start writes\n%s", seed, a, b)
			}
		}
		if r := p.sync(t, NFT, m.Table()); r != (net.Report{}) {
			t.Fatalf("seed %d: a new start had to do %+v", seed, r)
		}
	}
}

func change(dice *rand.Rand, m *net.Model) {
	switch dice.Intn(5) {
	case 0, 1:
		m.SetService(RandomService(dice))
	case 2, 3:
		m.SetSlice(RandomSlice(dice))
	default:
		m.DeleteService(net.Key{Namespace: "default", Name: RandomServiceName(dice)})
		m.DeleteSlice(net.Key{Namespace: "default", Name: RandomSliceName(dice)})
	}
}

// TestManyPartialEqualsFull: the same with so many services and endpoints that
// trees branch and fold, and endpoints are in groups.
func TestManyPartialEqualsFull(t *testing.T) {
	for seed := range int64(3) {
		dice := rand.New(rand.NewSource(seed))
		m := net.NewModel(thisNode)
		p := onPaper(t, Config{})
		p.sync(t, NFT, m.Table())
		alive := map[string]bool{}
		for step := range 60 {
			for range 1 + dice.Intn(30) {
				name := fmt.Sprintf("s%d", dice.Intn(600))
				if dice.Intn(60) < step-20 {
					m.DeleteService(net.Key{Namespace: "default", Name: name})
					m.DeleteSlice(net.Key{Namespace: "default", Name: name + "-1"})
					delete(alive, name)
					continue
				}
				alive[name] = true
				m.SetService(big(dice, name))
				m.SetSlice(bigSlice(dice, name))
			}
			d := m.Take()
			p.apply(t, NFT, &d)
			if step%6 != 5 {
				continue
			}
			if r := p.sync(t, NFT, m.Table()); r != (net.Report{}) {
				t.Fatalf("seed %d, step %d, %d services: a new start had to do %+v", seed, step, len(alive), r)
			}
		}
	}
}

func big(dice *rand.Rand, name string) *corev1.Service {
	var n int
	fmt.Sscanf(name, "s%d", &n)
	s := Service(name, []string{fmt.Sprintf("10.96.%d.%d", n%3, n/3+1), fmt.Sprintf("fd96::%x:%x", n%3, n/3+1)},
		Port("a", corev1.ProtocolTCP, 80, int32(30000+n)), Port("b", corev1.ProtocolUDP, 53, 0),
		External("9.9.9.9", "2001:db8::9")) // one for all, at ports of their own
	s.Spec.Ports[0].Port = int32(1000 + n)
	if n%5 == 0 {
		Affinity(100)(s)
	}
	if n%7 == 0 {
		LocalOutside(s)
	}
	return s
}

func bigSlice(dice *rand.Rand, name string) *discoveryv1.EndpointSlice {
	parts := []func(*discoveryv1.EndpointSlice){To("a", corev1.ProtocolTCP, 8080), To("b", corev1.ProtocolUDP, 53)}
	n := dice.Intn(5)
	if dice.Intn(20) == 0 {
		n = 60 + dice.Intn(200)
	}
	for i := range n {
		parts = append(parts, At(fmt.Sprintf("10.0.%d.%d", dice.Intn(4), i+1), []string{"here", "there"}[dice.Intn(2)]))
	}
	return Slice(name+"-1", name, parts...)
}

// fuzzed is a paper that is put through the histories of all backends.
type fuzzed struct {
	*paper
	t    testing.TB
	read map[string]*rule
}

func (p *fuzzed) Sync(table *net.Table) int {
	b, err := New(p.cfg)
	must(p.t, err)
	p.Backend = b
	r := p.sync(p.t, NFT, table)
	return r.Chains + r.Elements
}

func (p *fuzzed) Apply(d *net.Diff) { p.apply(p.t, NFT, d) }

func (p *fuzzed) Trace(from netip.Addr, to net.Address) map[End]float64 {
	k := p.kernels[0]
	if to.IP.Is6() {
		k = p.kernels[1]
	}
	tr := newTracer(k)
	tr.read = p.read
	out := map[End]float64{}
	for f, n := range tr.trace(packet{src: from, dst: to.IP, proto: strings.ToLower(to.Proto.String()), dport: int(to.Port)}, slices.Contains(nodeAddr, from)) {
		out[End{What: f.what, To: f.to, Masked: f.masked}] = n
	}
	if tr.steps > 400 {
		p.t.Errorf("%s calls %s: %d rules", from, to, tr.steps)
	}
	return out
}

var ranges = []netip.Prefix{
	netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("10.96.0.0/20"), netip.MustParsePrefix("10.98.0.0/24"),
	netip.MustParsePrefix("fd96::/112"), netip.MustParsePrefix("fd96::/108"), netip.MustParsePrefix("192.168.0.0/16"),
}

var world = World{Node: thisNode, Pods: pods, Ranges: ranges}

func freshPaper(t testing.TB) Paper { return &fuzzed{onPaper(t, Config{}), t, map[string]*rule{}} }

// TestTables: whatever the history, changes leave what a backend that begins would
// write, and packets end as the oracles say.
func TestTables(t *testing.T) { world.Tables(t, freshPaper) }

// FuzzTables lets the fuzzer write the history.
func FuzzTables(f *testing.F) { world.Fuzz(f, freshPaper) }

// TestBatches: in many small batches each step leads only to what is there, and
// ends where one step ends.
func TestBatches(t *testing.T) {
	dice := rand.New(rand.NewSource(1))
	m := net.NewModel(thisNode)
	p, q := onPaper(t, Config{}), onPaper(t, Config{})
	for _, n := range []int{600, 20, 400, 0} {
		for i := range 600 {
			name := fmt.Sprintf("s%d", i)
			if i < n {
				m.SetService(big(dice, name))
				m.SetSlice(bigSlice(dice, name))
			} else {
				m.DeleteService(net.Key{Namespace: "default", Name: name})
			}
		}
		m.Take()
		p.sync(t, NFT, m.Table())
		q.sync(t, Legacy, m.Table())
		for i := range p.kernels {
			if a, b := p.kernels[i].String(), q.kernels[i].String(); a != b {
				t.Fatalf("%d services: in steps there is\n%s\nat once\n%s", n, a, b)
			}
		}
	}
}

// TestGroups: of many endpoints each has the same share, a packet walks few
// rules, and one that goes changes few of them.
func TestGroups(t *testing.T) {
	m := net.NewModel(thisNode)
	m.SetService(Service("big", []string{"10.96.0.1"}, Port("p", corev1.ProtocolTCP, 80, 0), Affinity(60)))
	var all []*discoveryv1.EndpointSlice
	for i := range 4 {
		parts := []func(*discoveryv1.EndpointSlice){To("p", corev1.ProtocolTCP, 8080)}
		for j := range 500 {
			parts = append(parts, At(fmt.Sprintf("10.%d.%d.%d", 1+i, j/250, j%250+1), ""))
		}
		all = append(all, Slice(fmt.Sprintf("big-%d", i), "big", parts...))
		m.SetSlice(all[i])
	}
	m.Take()
	p := onPaper(t, Config{})
	p.sync(t, Legacy, m.Table())
	tr := newTracer(p.kernels[0])
	fates := tr.trace(packet{src: netip.MustParseAddr("10.0.0.1"), dst: netip.MustParseAddr("10.96.0.1"), proto: "tcp", dport: 80}, false)
	if len(fates) != 2000 {
		t.Errorf("%d fates", len(fates))
	}
	for f, n := range fates {
		if f.what != "served" || math.Abs(n-1/2000.) > 1e-6 {
			t.Errorf("%v: %g", f, n)
		}
	}
	all[0].Endpoints = all[0].Endpoints[1:]
	m.SetSlice(all[0])
	d := m.Take()
	p.layouts[0].apply(&d)
	n := 0
	for _, x := range patches(p.layouts[0], false) {
		n += x.rules()
	}
	if n == 0 || n > 500 {
		t.Errorf("one endpoint of 2000 costs %d rules", n)
	}
}

// TestRemembered: who is remembered by affinity goes where it went, by whatever
// address it comes.
func TestRemembered(t *testing.T) {
	m := net.NewModel(thisNode)
	m.SetService(hosttest.ServiceOf(1, Affinity(60)))
	m.SetSlice(Slice("s1-1", "s1", To("t", corev1.ProtocolTCP, 8080), At("10.0.0.5", ""), At("10.0.0.6", ""), At("10.0.0.7", "")))
	m.Take()
	p := onPaper(t, Config{})
	p.sync(t, NFT, m.Table())
	e := m.Table().Sorted()[0]
	client := netip.MustParseAddr("192.168.0.9")
	for _, end := range e.Cluster {
		tr := newTracer(p.kernels[0])
		tr.knows = map[string]netip.Addr{p.layouts[0].listOf(e, "", end): client}
		for _, to := range []string{"10.96.0.1:80", "1.1.1.1:80", "2.2.2.1:80", "192.168.0.1:30001"} {
			at := netip.MustParseAddrPort(to)
			fates := tr.trace(packet{src: client, dst: at.Addr(), proto: "tcp", dport: int(at.Port())}, false)
			if fates[fate{"served", end, true}] != 1 {
				t.Errorf("%s, remembered at %s: %v", to, end, fates)
			}
			fates = tr.trace(packet{src: netip.MustParseAddr("192.168.0.10"), dst: at.Addr(), proto: "tcp", dport: int(at.Port())}, false)
			if len(fates) != 3 || len(tr.sets) != 3 {
				t.Errorf("%s, somebody else: %v, remembered in %v", to, fates, tr.sets)
			}
		}
	}
}
