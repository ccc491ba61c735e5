package net_test

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
	"nodeagent/internal/net/nettest"
)

// world is a history of objects and of a model that is told only what changes, and a
// shadow that is only told of diffs.
type world struct {
	*nettest.History
	entries  map[net.Address]*net.Entry
	ips      map[netip.Addr]bool
	here     map[netip.Addr]bool
	findings map[net.Key][]net.Finding
	health   map[net.Key]net.Health
}

func newWorld(dice *rand.Rand) *world {
	return &world{
		nettest.NewHistory(dice, node),
		map[net.Address]*net.Entry{}, map[netip.Addr]bool{}, map[netip.Addr]bool{}, map[net.Key][]net.Finding{}, map[net.Key]net.Health{},
	}
}

// step changes one thing, at times of the node.
func (w *world) step() {
	if w.Dice.Intn(50) == 0 {
		w.Move(node)
		return
	}
	w.Step()
}

// take follows the diff.
func (w *world) take(t *testing.T) {
	d := w.Model.Take()
	for _, c := range d.Entries {
		a := net.Address{}
		if c.Old != nil {
			a = c.Old.Addr
			if w.entries[a] != c.Old {
				t.Fatalf("a change of %s says that it was another entry than it was", a)
			}
			delete(w.entries, a)
		}
		if c.New != nil {
			if c.Old == nil && w.entries[c.New.Addr] != nil {
				t.Fatalf("a change of %s forgets what was there", c.New.Addr)
			}
			w.entries[c.New.Addr] = c.New
		}
	}
	follow(t, w.ips, d.ClusterIPs)
	follow(t, w.here, d.Here)
	for _, k := range d.Findings {
		w.findings[k] = w.Model.Findings(k)
		if len(w.findings[k]) == 0 {
			delete(w.findings, k)
		}
	}
	for _, k := range d.Health {
		if h, ok := w.Model.Table().Health[k]; ok {
			w.health[k] = h
		} else {
			delete(w.health, k)
		}
	}
}

func follow(t *testing.T, set map[netip.Addr]bool, d net.Addresses) {
	for _, a := range d.Removed {
		if !set[a] {
			t.Fatalf("%s went and was not there", a)
		}
		delete(set, a)
	}
	for _, a := range d.Added {
		if set[a] {
			t.Fatalf("%s came and was there", a)
		}
		set[a] = true
	}
}

// compare holds the shadow against a fresh build of all objects in any order.
func (w *world) compare(t *testing.T) {
	fresh := net.NewModel(w.Node)
	for _, s := range w.Slices {
		fresh.SetSlice(s)
	}
	for _, s := range w.Services {
		fresh.SetService(s)
	}
	fresh.Take()
	want := fresh.Table()
	if got, exp := show(w.Model.Table()), show(want); got != exp {
		t.Fatalf("the table is\n%s\nand a fresh one\n%s", got, exp)
	}
	if len(w.entries) != len(want.Entries) {
		t.Fatalf("%d entries by diffs, %d in a fresh table", len(w.entries), len(want.Entries))
	}
	for a, e := range want.Entries {
		if !reflect.DeepEqual(w.entries[a], e) {
			t.Fatalf("by diffs %+v, fresh %+v", w.entries[a], e)
		}
	}
	for what, x := range map[string][2][]netip.Addr{
		"cluster IPs": {slices.SortedFunc(maps.Keys(w.ips), netip.Addr.Compare), want.ClusterIPs()},
		"addresses":   {slices.SortedFunc(maps.Keys(w.here), netip.Addr.Compare), want.Here()},
	} {
		if !slices.Equal(x[0], x[1]) {
			t.Fatalf("%s by diffs %v, fresh %v", what, x[0], x[1])
		}
	}
	if !maps.Equal(w.health, want.Health) {
		t.Fatalf("health by diffs %v, fresh %v", w.health, want.Health)
	}
	for k := range w.Services {
		if !slices.Equal(w.findings[k], fresh.Findings(k)) {
			t.Fatalf("findings of %s by diffs %v, fresh %v", k, w.findings[k], fresh.Findings(k))
		}
	}
}

// TestPartialEqualsFull: whatever the history, the table is the one of a fresh
// build, and the diffs say all of it.
func TestPartialEqualsFull(t *testing.T) {
	histories := 300
	if testing.Short() {
		histories = 30
	}
	for seed := range int64(histories) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(rand.New(rand.NewSource(seed)))
			for range 40 {
				for range 1 + w.Dice.Intn(4) {
					w.step()
				}
				w.take(t)
			}
			w.compare(t)
		})
	}
}

// FuzzHistory lets the fuzzer throw the dice.
func FuzzHistory(f *testing.F) {
	f.Add([]byte("services and slices"))
	f.Fuzz(func(t *testing.T, data []byte) {
		w := newWorld(rand.New(nettest.NewTape(data)))
		for range min(len(data)/8+1, 200) {
			w.step()
			if w.Dice.Intn(3) == 0 {
				w.take(t)
			}
		}
		w.take(t)
		w.compare(t)
	})
}

// TestOneChangeIsSmall: what one slice changes is one entry, however many there
// are, and what changes nothing is nothing.
func TestOneChangeIsSmall(t *testing.T) {
	m := net.NewModel(node)
	services, endpoints := nettest.Many(200, 5)
	fill(m, services, endpoints)
	if d := m.Take(); len(d.Entries) != 200 {
		t.Fatalf("%d entries, want 200", len(d.Entries))
	}
	s := endpoints[7].DeepCopy()
	m.SetSlice(s)
	m.SetService(services[8])
	if d := m.Take(); !d.Empty() || len(d.Findings) > 0 {
		t.Errorf("an update that changes nothing changes %+v", d)
	}
	s.Endpoints = s.Endpoints[1:]
	m.SetSlice(s)
	d := m.Take()
	if len(d.Entries) != 1 || len(d.Entries[0].Old.Cluster) != 5 || len(d.Entries[0].New.Cluster) != 4 || len(d.ClusterIPs.Added)+len(d.ClusterIPs.Removed) != 0 {
		t.Errorf("one endpoint less changes %+v", d)
	}
}

// TestOracle holds the table against the oracle, which reads the objects by
// itself: for random clusters without conflicts every address from everywhere.
func TestOracle(t *testing.T) {
	pods := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("fd10::/64")}
	for seed := range int64(300) {
		dice := rand.New(rand.NewSource(seed))
		services, endpoints := nettest.RandomCluster(dice)
		c := nettest.Cluster{Services: services, Slices: endpoints, NodeName: node.Name, Zone: node.Zone, NodeAddrs: node.Addrs, Pods: pods}
		for _, e := range net.Build(services, endpoints, node).Entries {
			check := func(from string, to net.Address, v net.Verdict) {
				t.Helper()
				ip := to.IP
				if to.NodePort() {
					ip = node.Addrs[0]
					if to.IP.Is6() {
						ip = node.Addrs[1]
					}
				}
				f := c.Ask(netip.MustParseAddr(from), corev1.Protocol(to.Proto.String()), netip.AddrPortFrom(ip, to.Port))
				want := map[net.Verdict]string{net.Refuse: "refused", net.Drop: "dropped", net.ToCluster: "served", net.ToLocal: "served"}[v]
				var ends []netip.AddrPort
				switch v {
				case net.ToCluster:
					ends = e.Cluster
				case net.ToLocal:
					ends = e.Local
				}
				slices.SortFunc(f.To, netip.AddrPort.Compare)
				if f.What != want || !slices.Equal(f.To, ends) {
					t.Errorf("seed %d: from %s to %s: the table says %s %v, the oracle %s %v", seed, from, to, v, ends, f.What, f.To)
				}
			}
			pod, outside := "10.0.3.3", "172.20.0.9"
			if e.Addr.IP.Is6() {
				pod, outside = "fd10::3:3", "fd20::9"
			}
			check(pod, e.Addr, e.ForClusterIP())
			for _, f := range e.Fronts {
				if f.Kind != net.Balancer || !e.Ranged {
					check(pod, f.Address, e.ForInside())
					check(outside, f.Address, e.ForOutside())
				}
			}
		}
	}
}
