package nftables

import (
	"fmt"
	"maps"
	"math/rand"
	"testing"

	"github.com/google/nftables/expr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"nodeagent/internal/net"
	"nodeagent/internal/net/hosttest"
	"nodeagent/internal/net/nettest"
	"nodeagent/internal/test/need"
)

// TestNumber: numbers are different, of ours, and known again.
func TestNumber(t *testing.T) {
	seen := map[string]bool{}
	for i := uint32(1); i < 70_000; i++ {
		n := number(i)
		if seen[n] || indexOf(n) != i {
			t.Fatalf("number %d is %x, and that is %d", i, n, indexOf(n))
		}
		seen[n] = true
	}
	for _, none := range []string{"", mark(0), mark(5), mark(localFirst), mark(0xffffffff), "12345"} {
		if i := indexOf(none); i != 0 {
			t.Errorf("%x is number %d", none, i)
		}
	}
}

// TestAssign: who has a number keeps it, who had one in the kernel gets it again, and
// no two of a family have the same.
func TestAssign(t *testing.T) {
	a, b, c, six := pick{n: 1}, pick{n: 2}, pick{n: 3}, pick{n: 1, v6: true}
	have := elements{}
	numbers{b: 7, c: 2, six: 9}.put(have, b)
	numbers{c: 2}.put(have, c)
	have[slot{set: "picks4", key: number(9)}] = content{verdict: b.name()} // twice: the smaller one counts
	have[slot{set: "picks4", key: number(1)}] = content{verdict: "cluster4-99"}
	have[slot{set: "picks4", key: "bad"}] = content{verdict: a.name()}
	ns := numbers{a: 2}
	ns.assign([]pick{a, b, c, six}, have)
	if want := (numbers{a: 2, b: 7, c: 1, six: 1}); !maps.Equal(ns, want) {
		t.Errorf("the numbers are %v, want %v", ns, want)
	}
	ns.keep(map[pick]int{a: 1, c: 0})
	ns.assign([]pick{a, b, c}, nil)
	if want := (numbers{a: 2, b: 1, c: 3}); !maps.Equal(ns, want) {
		t.Errorf("the numbers are %v, want %v", ns, want)
	}
}

// TestNumbersPartialEqualsFull: chains come and go with changes of services that have
// endpoints; a backend that starts anew finds nothing to do, and no change meets another
// table than it expects.
func TestNumbersPartialEqualsFull(t *testing.T) {
	need.Have(t, need.Root)
	for seed := range int64(4) {
		dice := rand.New(rand.NewSource(seed))
		m := net.NewModel(thisNode)
		b := backend(t, Config{})
		for step := range 80 {
			for range 1 + dice.Intn(3) {
				changeOne(m, dice)
			}
			d := m.Take()
			must(t, b.Apply(hosttest.Ctx(t), m.Table(), &d))
			if !b.known || b.opens != 1 {
				t.Fatalf("seed %d, step %d: a change met another table", seed, step)
			}
			if step%8 != 7 {
				continue
			}
			fresh, err := New(b.cfg)
			must(t, err)
			if r, err := fresh.Sync(hosttest.Ctx(t), m.Table()); err != nil || r != (net.Report{}) || !maps.Equal(fresh.numbers, b.numbers) {
				t.Fatalf("seed %d, step %d: a full sync had to do %+v, %v; numbers %v, %v", seed, step, r, err, b.numbers, fresh.numbers)
			}
			fresh.Close()
		}
	}
}

// changeOne changes one of eight services: its kind and its number of endpoints.
func changeOne(m *net.Model, dice *rand.Rand) {
	i := 1 + dice.Intn(8)
	name := fmt.Sprintf("s%d", i)
	if dice.Intn(8) == 0 {
		m.DeleteService(net.Key{Namespace: "default", Name: name})
		return
	}
	var kind []func(*corev1.Service)
	if dice.Intn(3) == 0 {
		kind = append(kind, nettest.LocalOutside)
	}
	if dice.Intn(4) == 0 {
		kind = append(kind, nettest.Affinity(int32(10*(1+dice.Intn(3)))))
	}
	m.SetService(hosttest.ServiceOf(i, kind...))
	parts := []func(*discoveryv1.EndpointSlice){nettest.To("t", corev1.ProtocolTCP, 8080), nettest.To("u", corev1.ProtocolUDP, 8080)}
	for j := range dice.Intn(7) {
		parts = append(parts, nettest.At(fmt.Sprintf("10.0.%d.%d", i, 1+j), [...]string{"here", "there"}[j%2]))
	}
	m.SetSlice(nettest.Slice("ends-"+name, name, parts...))
}

// TestFewVerdicts: what leads to chains, which the kernel validates with each change,
// does not grow with services, served or not.
func TestFewVerdicts(t *testing.T) {
	need.Have(t, need.Root)
	b := backend(t, Config{})
	count := func(n int) int {
		services, endpoints := nettest.Many(n, 3)
		for i := range services {
			services[i].Spec.Ports[0].NodePort = int32(20_000 + i)
			services[i].Spec.Type = corev1.ServiceTypeNodePort
		}
		_, err := b.Sync(hosttest.Ctx(t), net.Build(services, endpoints[:n/2], thisNode))
		must(t, err)
		s, err := b.read(b.c)
		must(t, err)
		verdicts := 0
		for _, x := range s.elements {
			if x.verdict != "" {
				verdicts++
			}
		}
		return verdicts
	}
	if few, many := count(20), count(400); few != many || few == 0 {
		t.Errorf("20 services have %d verdicts, 400 have %d", few, many)
	}
}

// TestLittleIsBound: a chain that comes for a service looks up nothing that grows with
// services: the kernel would walk all of it.
func TestLittleIsBound(t *testing.T) {
	b, err := New(Config{Pods: hosttest.Pods})
	must(t, err)
	for _, by := range []by{address, nodeport} {
		for _, how := range []how{plain, masked, local, mixed} {
			for _, keep := range []uint32{0, 60} {
				for _, p := range (pick{by: by, how: how, n: 3, local: 2, keep: keep}).all() {
					for _, r := range b.rulesOf(p) {
						for _, x := range r.exprs {
							switch x := x.(type) {
							case *expr.Lookup:
								t.Errorf("%s looks up %s", p.name(), x.SetName)
							case *expr.Dynset:
								if !p.keeps() {
									t.Errorf("%s writes to %s", p.name(), x.SetName)
								}
							}
						}
					}
				}
			}
		}
	}
}

// TestCheck: a table that is another one than was written is told, also by kernels that
// do not count.
func TestCheck(t *testing.T) {
	need.Have(t, need.Root)
	b := backend(t, Config{})
	services, endpoints := nettest.Many(300, 5)
	table := net.Build(services, endpoints, thisNode)
	_, err := b.Sync(hosttest.Ctx(t), table)
	must(t, err)
	want := b.want(table, nil)
	must(t, b.check(b.c, table, want))
	sets, err := b.listSets()
	must(t, err)
	if sets["services4"].count < 0 {
		t.Log("this kernel does not count elements")
	} else if !counted(sets, want) {
		t.Errorf("the kernel counts %v", sets)
	}
	sets["services4"] = held{count: -1}
	if counted(sets, want) {
		t.Error("what is not counted is believed")
	}
	nft(t, "delete element inet nodeagent-services services4 { 10.96.0.7 . tcp . 80 }")
	if err := b.check(b.c, table, want); err == nil {
		t.Error("a lost element is not seen")
	}
}
