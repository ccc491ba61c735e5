package net_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"nodeagent/internal/net"
	. "nodeagent/internal/net/nettest"
)

// TestFlows: which UDP flows may go on, and that what only grows concerns none.
func TestFlows(t *testing.T) {
	dns := func(change ...func(*corev1.Service)) *corev1.Service {
		return Service("dns", []string{"10.96.0.10"}, append(change, Port("udp", udp, 53, 30053), Port("tcp", tcp, 53, 0))...)
	}
	slice := func(parts ...func(*discoveryv1.EndpointSlice)) *discoveryv1.EndpointSlice {
		return Slice("dns-x", "dns", append(parts, To("udp", udp, 53), To("tcp", tcp, 53))...)
	}
	m := net.NewModel(node)
	step := func(what string, do func(), want string) {
		t.Helper()
		do()
		d := m.Take()
		var got []string
		for a, ends := range d.Flows() {
			got = append(got, fmt.Sprint(a, " ", ends))
		}
		slices.Sort(got)
		if s := strings.Join(got, "; "); s != want {
			t.Errorf("%s: %s, want %s", what, s, want)
		}
	}
	one, two := At("10.0.0.1", "here"), At("10.0.0.2", "elsewhere")
	step("a service", func() { m.SetService(dns()) }, "0.0.0.0:30053/UDP []; 10.96.0.10:53/UDP []")
	step("its first endpoint", func() { m.SetSlice(slice(one)) }, "0.0.0.0:30053/UDP [10.0.0.1:53]; 10.96.0.10:53/UDP [10.0.0.1:53]")
	step("a second one", func() { m.SetSlice(slice(one, two)) }, "")
	draining := At("10.0.0.1", "here")
	step("one that drains, and answers", func() {
		s := slice(draining, two)
		c := &s.Endpoints[0].Conditions
		c.Ready, c.Serving, c.Terminating = new(false), new(true), new(true)
		m.SetSlice(s)
	}, "")
	step("one that is gone", func() { m.SetSlice(slice(two)) }, "0.0.0.0:30053/UDP [10.0.0.2:53]; 10.96.0.10:53/UDP [10.0.0.2:53]")
	step("another address", func() { m.SetService(dns(External("192.0.2.1"))) },
		"0.0.0.0:30053/UDP [10.0.0.2:53]; 10.96.0.10:53/UDP [10.0.0.2:53]; 192.0.2.1:53/UDP [10.0.0.2:53]")
	step("and none", func() { m.SetService(dns()) }, "0.0.0.0:30053/UDP [10.0.0.2:53]; 10.96.0.10:53/UDP [10.0.0.2:53]; 192.0.2.1:53/UDP []")
	step("no endpoint", func() { m.SetSlice(slice()) }, "0.0.0.0:30053/UDP []; 10.96.0.10:53/UDP []")
	all := m.Table().Flows()
	step("no service", func() { m.DeleteService(net.Key{Namespace: "default", Name: "dns"}) }, "0.0.0.0:30053/UDP []; 10.96.0.10:53/UDP []")
	if len(all) != 2 || len(m.Table().Flows()) != 0 {
		t.Errorf("of the whole table there are %v, then %v", all, m.Table().Flows())
	}
}

// TestLeaveOut: a service whose rules are refused is as if it were not there, says
// so, and comes back when it or its endpoints change.
func TestLeaveOut(t *testing.T) {
	m := net.NewModel(node)
	services, endpoints := Many(5, 2)
	fill(m, services, endpoints)
	m.Take()
	key := net.Key{Namespace: "default", Name: services[2].Name}
	m.LeaveOut(key, "too long")
	d := m.Take()
	if len(d.Entries) != 1 || d.Entries[0].New != nil || len(d.ClusterIPs.Removed) != 1 || len(m.Table().Entries) != 4 {
		t.Errorf("it is left out by %+v", d)
	}
	if f := m.Findings(key); len(f) != 1 || f[0].Reason != net.ReasonRefused || !strings.Contains(f[0].Message, "too long") {
		t.Errorf("it says %+v", f)
	}
	m.SetService(services[1])
	m.Take()
	if len(m.Table().Entries) != 4 {
		t.Error("it came back although another one changed")
	}
	m.SetSlice(endpoints[2])
	if m.Take(); len(m.Table().Entries) != 5 || len(m.Findings(key)) != 0 {
		t.Errorf("when it is changed there are %d entries, and %v", len(m.Table().Entries), m.Findings(key))
	}
}

// TestKeep: what a complete list does not have is forgotten.
func TestKeep(t *testing.T) {
	m := net.NewModel(node)
	fill(m, nil, nil)
	services, endpoints := Many(6, 1)
	fill(m, services, endpoints)
	m.Take()
	m.KeepServices(func(k net.Key) bool { return k.Name != services[0].Name })
	m.KeepSlices(func(k net.Key) bool { return k.Name != endpoints[1].Name })
	m.Take()
	var want []*corev1.Service
	var ends []*discoveryv1.EndpointSlice
	want, ends = append(want, services[1:]...), append(append(ends, endpoints[0]), endpoints[2:]...)
	if got, fresh := show(m.Table()), show(net.Build(want, ends, node)); got != fresh {
		t.Errorf("there is\n%swant\n%s", got, fresh)
	}
}

// TestChange: a table can be changed there and back, and its counts with it.
func TestChange(t *testing.T) {
	services, endpoints := Many(20, 3)
	m := net.NewModel(node)
	fill(m, services, endpoints)
	m.Take()
	was := m.Table().Clone()
	table := m.Table().Clone()
	var out, back []net.Change
	for _, e := range table.Sorted()[:10] {
		out, back = append(out, net.Change{Old: e}), append(back, net.Change{New: e})
	}
	d := table.Change(out)
	if len(d.Entries) != 10 || len(d.ClusterIPs.Removed) != 10 || len(table.Entries) != 10 || len(m.Table().Entries) != 20 {
		t.Errorf("without ten there are %d, by %+v", len(table.Entries), d)
	}
	table.Change(back)
	if show(table) != show(was) || !slices.Equal(table.ClusterIPs(), was.ClusterIPs()) || !slices.Equal(table.Here(), was.Here()) || !maps.Equal(table.Entries, was.Entries) {
		t.Error("there and back is another table")
	}
}

// TestRefused: the mark survives what is said about an error.
func TestRefused(t *testing.T) {
	plain := errors.New("no")
	if net.IsRefused(plain) || !net.IsRefused(fmt.Errorf("write: %w", net.AsRefused(plain))) || net.AsRefused(nil) != nil || !errors.Is(net.AsRefused(plain), plain) {
		t.Error("the mark of a refusal is lost, or never was one")
	}
}
