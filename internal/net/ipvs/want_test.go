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

// tables with the oracle: who asks, at a holding, gets what nettest.Cluster says.
func TestHoldingAsTheOracle(t *testing.T) {
	asked := 0
	for seed := range int64(400) {
		dice := rand.New(rand.NewSource(seed))
		services, slices := RandomCluster(dice)
		c := Cluster{Services: services, Slices: slices, NodeName: "here", NodeAddrs: hosttest.NodeAddr, Pods: hosttest.Pods}
		p := testPlan()
		h := p.whole(net.Build(services, slices, hosttest.ThisNode), nil)
		for _, s := range services {
			for _, port := range s.Spec.Ports {
				for _, to := range called0(s, port) {
					for _, from := range callers(to.Addr().Is6()) {
						want := c.Ask(from.ip, port.Protocol, to)
						got := p.trace(h, from, net.Address{IP: to.Addr(), Port: to.Port(), Proto: map[corev1.Protocol]net.Proto{corev1.ProtocolTCP: net.TCP, corev1.ProtocolUDP: net.UDP}[port.Protocol]})
						asked++
						if want.What != got.What || want.Masked != got.Masked || !sameEnds(want.To, got.To) {
							t.Fatalf("seed %d: %v calls %v %s: %+v, the oracle says %+v", seed, from.ip, to, port.Protocol, got, want)
						}
					}
				}
			}
		}
	}
	if asked < 1000 {
		t.Errorf("asked %d times only", asked)
	}
}

func sameEnds(a, b []netip.AddrPort) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, netip.AddrPort.Compare)
	slices.SortFunc(b, netip.AddrPort.Compare)
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}

// caller is who asks: by which chains its packets come, and from where.
type caller struct {
	ip   netip.Addr
	node bool
}

func callers(v6 bool) []caller {
	if v6 {
		return []caller{{netip.MustParseAddr("fd77::9"), false}, {netip.MustParseAddr("fd10::99"), false}, {nodes[1], true}}
	}
	return []caller{{netip.MustParseAddr("172.16.0.9"), false}, {netip.MustParseAddr("10.0.99.9"), false}, {nodes[0], true}}
}

func called0(s *corev1.Service, p corev1.ServicePort) []netip.AddrPort {
	var out []netip.AddrPort
	for _, ip := range slices.Concat(s.Spec.ClusterIPs, s.Spec.ExternalIPs) {
		out = append(out, netip.AddrPortFrom(netip.MustParseAddr(ip), uint16(p.Port)))
	}
	out = append(out, netip.AddrPortFrom(netip.MustParseAddr(s.Spec.ClusterIPs[0]), 1))
	for _, i := range s.Status.LoadBalancer.Ingress {
		out = append(out, netip.AddrPortFrom(netip.MustParseAddr(i.IP), uint16(p.Port)))
	}
	if p.NodePort != 0 {
		for _, a := range nodes {
			out = append(out, netip.AddrPortFrom(a, uint16(p.NodePort)))
		}
	}
	return out
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
