package ipvs

import (
	"fmt"
	"maps"
	"math/rand"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/net"
	"nodeagent/internal/net/hosttest"
	. "nodeagent/internal/net/nettest"
)

var nodes = []netip.Addr{netip.MustParseAddr("192.168.0.1"), netip.MustParseAddr("fd00::1")}

func testPlan() *plan {
	return newPlan(Config{Scheduler: "rr", Pods: hosttest.Pods, Addrs: nodes}, 1<<14, nodes)
}

// change makes one change of a small world.
func change(dice *rand.Rand, m *net.Model) {
	switch dice.Intn(5) {
	case 0:
		m.DeleteService(net.Key{Namespace: "default", Name: RandomServiceName(dice)})
	case 1:
		m.DeleteSlice(net.Key{Namespace: "default", Name: RandomSliceName(dice)})
	case 2:
		m.SetSlice(RandomSlice(dice))
	case 3:
		s := RandomService(dice)
		if dice.Intn(2) == 0 {
			LocalOutside(s)
		}
		m.SetService(s)
	case 4: // services whose endpoints on this node are not all
		i := 1 + dice.Intn(4)
		name := fmt.Sprintf("s%d", i)
		m.SetService(ServiceOf(dice, i))
		var parts = Slice(name+"-x", name, To("t", corev1.ProtocolTCP, 8080), To("u", corev1.ProtocolUDP, 8080))
		for e := range dice.Intn(4) {
			At(fmt.Sprintf("10.0.%d.%d", i, e+1), []string{"here", "there"}[dice.Intn(2)])(parts)
		}
		m.SetSlice(parts)
	}
}

// ServiceOf is one of hosttest's, whose policy is Local as the dice have it.
func ServiceOf(dice *rand.Rand, i int) *corev1.Service {
	if dice.Intn(2) == 0 {
		return hosttest.ServiceOf(i, LocalOutside)
	}
	return hosttest.ServiceOf(i)
}

// become is what the kernel holds after a change.
func (h holding) become(have, want holding) {
	replace(h.servers, have.servers, want.servers)
	replace(h.elements, have.elements, want.elements)
	replace(h.bound, have.bound, want.bound)
}

func replace[K comparable, V any](in, have, want map[K]V) {
	for k := range have {
		delete(in, k)
	}
	maps.Copy(in, want)
}

// TestPartialEqualsFull: whatever the history of changes, what the kernel holds is
// what a new start would make of the table, marks included, which it takes over.
func TestPartialEqualsFull(t *testing.T) {
	mixedSeen := 0
	for seed := range int64(60) {
		dice := rand.New(rand.NewSource(seed))
		m := net.NewModel(hosttest.ThisNode)
		p := testPlan()
		kernel := p.whole(m.Table(), nil)
		for step := range 60 {
			for range 1 + dice.Intn(4) {
				change(dice, m)
			}
			d := m.Take()
			have, want := p.change(&d)
			for s, x := range have.servers {
				if is, ok := kernel.servers[s]; !ok || !reflect.DeepEqual(is, x) {
					t.Fatalf("seed %d, step %d: server %s is %v and was thought %v", seed, step, s.key(), is, x)
				}
			}
			kernel.become(have, want)
			fresh := testPlan()
			full := fresh.whole(m.Table(), marksIn(kernel.elements))
			compareHoldings(t, fmt.Sprintf("seed %d, step %d", seed, step), kernel, full)
			if !maps.Equal(p.marks, fresh.marks) || !maps.Equal(p.uses, fresh.uses) {
				t.Fatalf("seed %d, step %d: marks %v, uses %v; fresh %v, %v", seed, step, p.marks, p.uses, fresh.marks, fresh.uses)
			}
			mixedSeen += len(p.marks)
		}
	}
	if mixedSeen == 0 {
		t.Error("no entry had a mark: the test shows too little")
	}
}

func compareHoldings(t *testing.T, when string, a, b holding) {
	t.Helper()
	if !reflect.DeepEqual(a.servers, b.servers) {
		t.Fatalf("%s: servers\n%v\nfresh\n%v", when, a.servers, b.servers)
	}
	if !maps.Equal(a.elements, b.elements) {
		t.Fatalf("%s: elements\n%v\nfresh\n%v", when, a.elements, b.elements)
	}
	if !maps.Equal(a.bound, b.bound) {
		t.Fatalf("%s: addresses %v, fresh %v", when, a.bound, b.bound)
	}
}

// paper is a plan whose kernel is a holding.
type paper struct {
	t      testing.TB
	p      *plan
	kernel holding
}

// Sync does as a backend that begins.
func (x *paper) Sync(t *net.Table) int {
	x.p = testPlan()
	want := x.p.whole(t, marksIn(x.kernel.elements))
	n := differences(x.kernel.servers, want.servers, func(a, b pool) bool { return reflect.DeepEqual(a, b) }) +
		differences(x.kernel.elements, want.elements, func(a, b uint32) bool { return a == b }) +
		differences(x.kernel.bound, want.bound, func(a, b bool) bool { return a == b })
	x.kernel = want
	return n
}

func differences[K comparable, V any](a, b map[K]V, same func(V, V) bool) int {
	n := 0
	for k, v := range a {
		if w, ok := b[k]; !ok || !same(v, w) {
			n++
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			n++
		}
	}
	return n
}

// Apply makes the changes of a diff.
func (x *paper) Apply(d *net.Diff) { x.kernel.become(x.p.change(d)) }

// Trace sends the first packet of a connection through it.
func (x *paper) Trace(from netip.Addr, to net.Address) map[End]float64 {
	f := x.p.trace(x.kernel, caller{from, slices.Contains(nodes, from)}, to)
	if f.What != "served" {
		return map[End]float64{{What: f.What}: 1}
	}
	out := map[End]float64{}
	for _, a := range f.To {
		out[End{What: f.What, To: a, Masked: f.Masked || a.Addr() == from && x.kernel.has(itself(from))}] = 1 / float64(len(f.To))
	}
	return out
}

func (h holding) has(e element) bool { _, ok := h.elements[e]; return ok }

var world = World{Node: net.Node{Name: "here", Zone: "a", Addrs: nodes}, Pods: hosttest.Pods, Odd: bound}

func freshPaper(t testing.TB) Paper { return &paper{t, testPlan(), newHolding()} }

// TestTables: whatever the history, changes leave what a backend that begins would
// write, and packets end as the oracles say.
func TestTables(t *testing.T) { world.Tables(t, freshPaper) }

// FuzzTables lets the fuzzer write the history.
func FuzzTables(f *testing.F) { world.Fuzz(f, freshPaper) }

// bound tells of addresses that are on the device: the node has them, and so refuses what
// is not served there, for externalIPs, too. And of the node's others: nobody is refused
// there, though a cluster IP were one of them.
func bound(t *net.Table, a netip.Addr) bool {
	return slices.Contains(nodes, a) || slices.ContainsFunc(t.Sorted(), func(e *net.Entry) bool { return slices.Contains(vips(e), a) })
}

// caller is who asks: by which chains its packets come, and from where.
type caller struct {
	ip   netip.Addr
	node bool
}

// trace follows a new connection through the fixed rules, as rules.go has them.
func (p *plan) trace(h holding, from caller, to net.Address) Fate {
	in := func(s set) bool { _, ok := h.elements[element{set: s, at: to}]; return ok }
	pod := slices.ContainsFunc(p.cfg.Pods, func(x netip.Prefix) bool { return x.Contains(from.ip) })
	allowed := !in(gated)
	for x := range h.elements {
		allowed = allowed || (x.set == ranges && x.at == to && x.who.Contains(from.ip))
	}
	if from.node {
		allowed = !in(notNode)
	}
	s, there := h.servers[server{at: to}]
	f := Fate{What: "served", Masked: in(masq) || (in(cluster) && !pod)}
	if from.node {
		f.Masked = in(served)
	} else if m, ok := h.elements[element{set: local, at: to}]; ok && !pod {
		s, there = h.servers[server{at: anyOf(to.IP), mark: m}]
	}
	_, vip := h.elements[onlyAddress(ips, to.IP)]
	switch {
	case !allowed, in(drop), in(inside) && !pod && !from.node:
		return Fate{What: "dropped"}
	case in(refuse), vip && !in(served):
		return Fate{What: "refused"}
	case !there:
		return Fate{}
	}
	for a := range s.ends {
		f.To = append(f.To, a)
	}
	return f
}

// TestMarks: they are as many as entries are mixed, of their kinds, and never have
// the bit of masquerade, wherever that is.
func TestMarks(t *testing.T) {
	for bit := range 32 {
		p := newPlan(Config{}, 1<<bit, nodes)
		seen := map[uint32]bool{}
		for i := range 3000 {
			e := &net.Entry{
				Addr:         net.Address{IP: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), Port: 80, Proto: []net.Proto{net.TCP, net.UDP}[i%2]},
				LocalOutside: true, Fronts: []net.Front{{Kind: net.NodePort}},
				Cluster: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.2:80")},
				Local:   []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:80")},
			}
			p.mark(e)
			m := p.marks[e.Addr]
			if !ourMark(m, p.bit) || m&p.bit != 0 || seen[m] || (server{mark: m}).quick() != (e.Addr.Proto == net.UDP) {
				t.Fatalf("bit %d: entry %d has mark %#x", bit, i, m)
			}
			seen[m] = true
		}
	}
}
