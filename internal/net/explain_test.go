package net_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"nodeagent/internal/net"
	. "nodeagent/internal/net/nettest"
)

// gates prints how the gates stand.
func gates(x net.Explanation) string {
	var out []string
	for _, g := range x.Gates {
		out = append(out, string(g.Gate)+" "+string(g.State))
	}
	return strings.Join(out, ", ")
}

// allHeld is a kernel that has what the table says.
func allHeld(f net.Facts) net.Ground {
	g := net.Ground{Mode: "nftables", Settings: map[string]string{"net.ipv4.ip_forward": "1"}}
	for _, a := range f.Addresses {
		h := net.Held{Address: a.Address, Endpoints: a.Endpoints}
		if a.Inside == "refuse" || a.Outside == "drop" {
			h.Closed = a.Outside
		}
		g.Held = append(g.Held, h)
	}
	return g
}

// TestExplainService: what keeps a service from answering is found, and told with what to
// do.
func TestExplainService(t *testing.T) {
	const passed = "service passed, addresses passed, endpoints passed, policy passed, rules passed, node passed"
	web := func(change ...func(*corev1.Service)) *corev1.Service {
		return Service("web", []string{"10.96.0.1"}, append(change, Port("http", tcp, 80, 30080))...)
	}
	slice := func(parts ...func(*discoveryv1.EndpointSlice)) *discoveryv1.EndpointSlice {
		return Slice("web-1", "web", append(parts, To("http", tcp, 8080))...)
	}
	loop := net.Loop{Mode: "nftables", Begun: true}
	next := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name  string
		svc   *corev1.Service
		slc   *discoveryv1.EndpointSlice
		loop  net.Loop
		spoil func(*net.Ground)
		gates string
		says  []string
	}{
		{"all is well", web(), slice(At("10.0.0.1", "here")), loop, nil, passed, []string{"nothing on this node keeps"}},
		{"not there", nil, nil, loop, nil, "service blocked, addresses not reached, endpoints not reached, policy not reached, rules passed, node passed", []string{"no such Service", "kubectl get service -n default web"}},
		{"nobody reads the server", nil, nil, net.Loop{Trouble: []string{"follow Services: 403"}}, nil, "service waiting, addresses not reached, endpoints not reached, policy not reached, rules waiting, node passed", []string{"waiting at service", "403"}},
		{"headless", web(func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "None", []string{"None"} }), slice(At("10.0.0.1", "")), loop, nil, "service blocked, addresses not reached, endpoints not reached, policy not reached, rules passed, node passed", []string{"headless"}},
		{"ExternalName", web(func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }), nil, loop, nil, "service blocked, addresses not reached, endpoints not reached, policy not reached, rules passed, node passed", []string{"ExternalName"}},
		{"another proxy's", web(func(s *corev1.Service) { s.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "x"} }), nil, loop, nil, "service blocked, addresses not reached, endpoints not reached, policy not reached, rules passed, node passed", []string{"another proxy"}},
		{"no slice", web(), nil, loop, nil, "service passed, addresses passed, endpoints blocked, policy not reached, rules passed, node passed", []string{"no EndpointSlice", "kubernetes.io/service-name=web"}},
		{"none ready", web(), slice(At("10.0.0.1", "", NotReady)), loop, nil, "service passed, addresses passed, endpoints blocked, policy not reached, rules passed, node passed", []string{"0 of 1 endpoint chosen", "1 left out: its pod is not Ready"}},
		{"another port", web(), Slice("web-1", "web", To("https", tcp, 8443), At("10.0.0.1", "")), loop, nil, "service passed, addresses passed, endpoints blocked, policy not reached, rules passed, node passed", []string{`its slice has none of the service's ports: it has "https" 8443/TCP`}},
		{"some left out", web(), slice(At("10.0.0.1", "here"), At("10.0.0.2", "", Draining), At("10.0.0.3", "", NotReady), At("127.0.0.1", "")), loop, nil, passed, nil},
		{"policy", web(LocalInside, LocalOutside), slice(At("10.0.0.1", "there")), loop, nil, "service passed, addresses passed, endpoints passed, policy passed, rules passed, node passed", nil},
		{"policy, and nothing else", Service("web", []string{"10.96.0.1"}, LocalInside, Port("http", tcp, 80, 0)), slice(At("10.0.0.1", "there")), loop, nil, "service passed, addresses passed, endpoints passed, policy blocked, rules passed, node passed", []string{"policy Local without an endpoint on this node", "clusterIP 10.96.0.1:80/TCP"}},
		{"not yet", web(), slice(At("10.0.0.1", "")), net.Loop{Mode: "nftables"}, nil, "service passed, addresses passed, endpoints passed, policy passed, rules waiting, node passed", []string{"no rules were written yet"}},
		{"missing", web(), slice(At("10.0.0.1", "")), loop, func(g *net.Ground) { g.Held = g.Held[1:] }, "service passed, addresses passed, endpoints passed, policy passed, rules waiting, node passed", []string{"10.96.0.1:80/TCP is missing"}},
		{"different", web(), slice(At("10.0.0.1", "")), loop, func(g *net.Ground) { g.Held[1].Endpoints = []netip.AddrPort{netip.MustParseAddrPort("10.0.0.9:1")} }, "service passed, addresses passed, endpoints passed, policy passed, rules waiting, node passed", []string{"0.0.0.0:30080/TCP is different"}},
		{"the kernel fails", web(), slice(At("10.0.0.1", "")), net.Loop{Mode: "nftables", Begun: true, Failure: "no room", Next: &next}, func(g *net.Ground) { g.Held = nil }, "service passed, addresses passed, endpoints passed, policy passed, rules waiting, node passed", []string{"is missing", "no room"}},
		{"cannot be read", web(), slice(At("10.0.0.1", "")), loop, func(g *net.Ground) { g.Held, g.Unread = nil, "no rights" }, "service passed, addresses passed, endpoints passed, policy passed, rules unknown, node passed", nil},
		{"not forwarded", web(), slice(At("10.0.0.1", "")), loop, func(g *net.Ground) { g.Settings["net.ipv4.ip_forward"] = "0" }, "service passed, addresses passed, endpoints passed, policy passed, rules passed, node blocked", []string{"sysctl -w net.ipv4.ip_forward=1"}},
		{"a firewall", web(), slice(At("10.0.0.1", "")), loop, func(g *net.Ground) { g.Drops = []string{"chain FORWARD of table ip filter"} }, passed, nil},
	} {
		m := net.NewModel(node)
		if c.svc != nil {
			m.SetService(c.svc)
		}
		if c.slc != nil {
			m.SetSlice(c.slc)
		}
		m.Take()
		f := m.Facts(net.Key{Namespace: "default", Name: "web"})
		ground := allHeld(f)
		if c.spoil != nil {
			c.spoil(&ground)
		}
		x := net.ExplainService(f, c.loop, ground)
		if got := gates(x); got != c.gates {
			t.Errorf("%s: the gates are\n%s\nwant\n%s", c.name, got, c.gates)
		}
		for _, want := range c.says {
			if !strings.Contains(x.Summary, want) {
				t.Errorf("%s: the summary %q does not say %q", c.name, x.Summary, want)
			}
		}
		if (x.Blocks != nil) == strings.Contains(x.Summary, "nothing on this node") {
			t.Errorf("%s: %+v blocks, and it says %q", c.name, x.Blocks, x.Summary)
		}
	}
}

// TestExplainEndpoints: each endpoint says how it stands, and why it is left out.
func TestExplainEndpoints(t *testing.T) {
	m := net.NewModel(node)
	m.SetService(Service("web", []string{"10.96.0.1"}, Port("http", tcp, 80, 0)))
	m.SetSlice(Slice("web-1", "web", To("http", tcp, 8080), At("10.0.0.1", "here"), At("10.0.0.2", "there", Draining), At("10.0.0.3", "there", NotReady), At("127.0.0.1", "here")))
	m.Take()
	f := m.Facts(net.Key{Namespace: "default", Name: "web"})
	var got []string
	for _, e := range f.Endpoints {
		got = append(got, fmt.Sprintf("%s %s here %t chosen %t %s", e.Address, e.State, e.Here, e.Chosen, e.Why))
	}
	want := "10.0.0.1 ready here true chosen true \n" +
		"10.0.0.2 draining here false chosen false its pod ends, and others are ready\n" +
		"10.0.0.3 not ready here false chosen false its pod is not Ready, or does not serve any more"
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("the endpoints are\n%s\nwant\n%s", s, want)
	}
	if x := net.ExplainService(f, net.Loop{Begun: true}, allHeld(f)); !strings.Contains(x.Gates[2].Detail, `endpoint "127.0.0.1" is`) {
		t.Errorf("nothing is said of the endpoint that cannot be: %q", x.Gates[2].Detail)
	}
	if n := m.Names(); len(n) != 1 || n[0] != "default/web" {
		t.Errorf("the names are %q", n)
	}
}

// TestExplainHeld: without the daemon it is told what the kernel has, and that nobody can
// tell whether that is right.
func TestExplainHeld(t *testing.T) {
	key := net.Key{Namespace: "default", Name: "web"}
	held := net.Ground{Mode: "nftables", Held: []net.Held{{Address: "10.96.0.1:80/TCP", Service: "default/web:http cluster IP", Endpoints: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:8080")}}}}
	for _, c := range []struct {
		name   string
		ground net.Ground
		rules  net.GateState
		says   string
	}{
		{"held", held, net.GatePassed, "the daemon does not tell whether that is right"},
		{"nothing", net.Ground{Mode: "nftables"}, net.GateBlocked, "no rules for a service of this name; start the daemon"},
		{"no names", net.Ground{Mode: "ipvs"}, net.GateUnknown, "the daemon does not tell"},
		{"unread", net.Ground{Mode: "iptables", Unread: "not root"}, net.GateUnknown, "the daemon does not tell"},
	} {
		x := net.ExplainHeld(key, c.ground)
		if x.Gates[4].State != c.rules || !strings.Contains(x.Summary, c.says) {
			t.Errorf("%s: the rules are %+v, and it says %q", c.name, x.Gates[4], x.Summary)
		}
	}
	if x := net.ExplainHeld(key, held); len(x.Addresses) != 1 || x.Addresses[0].Kind != "cluster IP" || x.Addresses[0].Kernel != "present" {
		t.Errorf("the addresses are %+v", x.Addresses)
	}
}

// TestParseAddress: what is printed is read.
func TestParseAddress(t *testing.T) {
	for _, s := range []string{"10.96.0.1:80/TCP", "[fd96::1]:53/UDP", "0.0.0.0:30080/SCTP"} {
		if a, err := net.ParseAddress(s); err != nil || a.String() != s {
			t.Errorf("%q is read as %v, %v", s, a, err)
		}
	}
	for _, s := range []string{"", "10.96.0.1", "10.96.0.1:80", "10.96.0.1:80/", "10.96.0.1:80/ICMP", "x:80/TCP"} {
		if a, err := net.ParseAddress(s); err == nil {
			t.Errorf("%q is read as %v", s, a)
		}
	}
}
