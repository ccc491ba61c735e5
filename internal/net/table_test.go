package net_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"nodeagent/internal/net"
	. "nodeagent/internal/net/nettest"
)

const tcp, udp, sctp = corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP

var node = net.Node{Name: "here", Zone: "a", Addrs: []netip.Addr{netip.MustParseAddr("192.168.0.1"), netip.MustParseAddr("fd00::1")}}

// show prints a table for comparison, one entry a line.
func show(t *net.Table) string {
	var b strings.Builder
	for _, e := range t.Sorted() {
		fmt.Fprintf(&b, "%s %s: %s %v", e.Name(), e.Addr, e.ForClusterIP(), e.Cluster)
		if e.LocalInside || e.LocalOutside {
			fmt.Fprintf(&b, " local %v", e.Local)
		}
		for _, f := range e.Fronts {
			fmt.Fprintf(&b, "; %s %s: %s", f.Kind, f.Address, e.ForOutside())
			if e.ForInside() != e.ForOutside() {
				fmt.Fprintf(&b, ", inside %s", e.ForInside())
			}
		}
		if e.Affinity > 0 {
			fmt.Fprintf(&b, "; sticky %d", e.Affinity)
		}
		if e.Ranged {
			fmt.Fprintf(&b, "; from %v", e.Ranges)
		}
		if len(e.Here) > 0 {
			fmt.Fprintf(&b, "; here %v", e.Here)
		}
		b.WriteString("\n")
	}
	return b.String()
}

type svcs = []*corev1.Service
type slcs = []*discoveryv1.EndpointSlice

// TestTable: one cluster each, and the table that it makes, after the API's
// documentation and what kube-proxy does.
func TestTable(t *testing.T) {
	web := func(change ...func(*corev1.Service)) *corev1.Service {
		return Service("web", []string{"10.96.0.1"}, append(change, Port("http", tcp, 80, 0))...)
	}
	open := func(change ...func(*corev1.Service)) *corev1.Service {
		return Service("web", []string{"10.96.0.1"}, append(change, Port("http", tcp, 80, 30080))...)
	}
	slice := func(parts ...func(*discoveryv1.EndpointSlice)) *discoveryv1.EndpointSlice {
		return Slice("web-1", "web", append(parts, To("http", tcp, 8080))...)
	}
	for _, c := range []struct {
		name   string
		svcs   svcs
		slices slcs
		want   string
	}{
		{"one endpoint", svcs{web()}, slcs{slice(At("10.0.0.1", ""))},
			"default/web:http 10.96.0.1:80/TCP: cluster [10.0.0.1:8080]"},
		{"no slice: refused", svcs{web()}, nil,
			"default/web:http 10.96.0.1:80/TCP: refuse []"},
		{"none ready: refused", svcs{web()}, slcs{slice(At("10.0.0.1", "", NotReady), At("10.0.0.2", "", Gone))},
			"default/web:http 10.96.0.1:80/TCP: refuse []"},
		{"ready before draining", svcs{web()}, slcs{slice(At("10.0.0.1", "", Draining), At("10.0.0.2", ""))},
			"default/web:http 10.96.0.1:80/TCP: cluster [10.0.0.2:8080]"},
		{"only draining", svcs{web()}, slcs{slice(At("10.0.0.1", "", Draining), At("10.0.0.2", "", Gone))},
			"default/web:http 10.96.0.1:80/TCP: cluster [10.0.0.1:8080]"},
		{"internal policy local", svcs{web(LocalInside)}, slcs{slice(At("10.0.0.1", "there"), At("10.0.0.2", "here"))},
			"default/web:http 10.96.0.1:80/TCP: local [10.0.0.1:8080 10.0.0.2:8080] local [10.0.0.2:8080]; here [10.0.0.2]"},
		{"internal policy local, none here: dropped", svcs{web(LocalInside)}, slcs{slice(At("10.0.0.1", "there"))},
			"default/web:http 10.96.0.1:80/TCP: drop [10.0.0.1:8080] local []"},
		{"internal policy local, the one here drains", svcs{web(LocalInside)}, slcs{slice(At("10.0.0.1", "there"), At("10.0.0.2", "here", Draining))},
			"default/web:http 10.96.0.1:80/TCP: local [10.0.0.1:8080] local [10.0.0.2:8080]; here [10.0.0.2]"},
		{"node port", svcs{open()}, slcs{slice(At("10.0.0.1", ""))},
			"default/web:http 10.96.0.1:80/TCP: cluster [10.0.0.1:8080]; nodePort 0.0.0.0:30080/TCP: cluster"},
		{"external policy local, none here", svcs{open(LocalOutside)}, slcs{slice(At("10.0.0.1", "there"))},
			"default/web:http 10.96.0.1:80/TCP: cluster [10.0.0.1:8080] local []; nodePort 0.0.0.0:30080/TCP: drop, inside cluster"},
		{"external policy local, one here", svcs{open(LocalOutside)}, slcs{slice(At("10.0.0.1", "there"), At("10.0.0.2", "here"))},
			"default/web:http 10.96.0.1:80/TCP: cluster [10.0.0.1:8080 10.0.0.2:8080] local [10.0.0.2:8080]; nodePort 0.0.0.0:30080/TCP: local, inside cluster; here [10.0.0.2]"},
		{"external policy local, nobody anywhere: refused", svcs{open(LocalOutside)}, nil,
			"default/web:http 10.96.0.1:80/TCP: refuse [] local []; nodePort 0.0.0.0:30080/TCP: refuse"},
		{"external and balancer addresses", svcs{web(External("1.1.1.1"), Balanced("2.2.2.2"))}, slcs{slice(At("10.0.0.1", ""))},
			"default/web:http 10.96.0.1:80/TCP: cluster [10.0.0.1:8080]; externalIP 1.1.1.1:80/TCP: cluster; load balancer address 2.2.2.2:80/TCP: cluster"},
		{"a balancer of mode Proxy has its own address", svcs{web(Balanced("2.2.2.2"), func(s *corev1.Service) {
			m := corev1.LoadBalancerIPModeProxy
			s.Status.LoadBalancer.Ingress[0].IPMode = &m
		})}, slcs{slice(At("10.0.0.1", ""))},
			"default/web:http 10.96.0.1:80/TCP: cluster [10.0.0.1:8080]"},
		{"source ranges, one in another, one of the other family", svcs{web(Balanced("2.2.2.2"), Ranges("172.16.0.0/12", "172.17.0.0/16", " 9.9.9.9/32", "2001:db8::/32"))}, slcs{slice(At("10.0.0.1", ""))},
			"default/web:http 10.96.0.1:80/TCP: cluster [10.0.0.1:8080]; load balancer address 2.2.2.2:80/TCP: cluster; from [9.9.9.9/32 172.16.0.0/12]"},
		{"source ranges with the node", svcs{web(Balanced("2.2.2.2"), Ranges("192.168.0.0/16"))}, slcs{slice(At("10.0.0.1", ""))},
			"default/web:http 10.96.0.1:80/TCP: cluster [10.0.0.1:8080]; load balancer address 2.2.2.2:80/TCP: cluster; from [2.2.2.2/32 192.168.0.0/16]"},
		{"source range of everything", svcs{web(Balanced("2.2.2.2"), Ranges("10.0.0.0/8", "0.0.0.0/0"))}, slcs{slice(At("10.0.0.1", ""))},
			"default/web:http 10.96.0.1:80/TCP: cluster [10.0.0.1:8080]; load balancer address 2.2.2.2:80/TCP: cluster"},
		{"affinity by default 3 h", svcs{web(Affinity(0))}, slcs{slice(At("10.0.0.1", ""))},
			"default/web:http 10.96.0.1:80/TCP: cluster [10.0.0.1:8080]; sticky 10800"},
		{"hints for this zone", svcs{web()}, slcs{slice(At("10.0.0.1", "", ForZones("a")), At("10.0.0.2", "", ForZones("b")), At("10.0.0.3", "", ForZones("a", "b")))},
			"default/web:http 10.96.0.1:80/TCP: cluster [10.0.0.1:8080 10.0.0.3:8080]"},
		{"one without a hint: none counts", svcs{web()}, slcs{slice(At("10.0.0.1", "", ForZones("a")), At("10.0.0.2", ""))},
			"default/web:http 10.96.0.1:80/TCP: cluster [10.0.0.1:8080 10.0.0.2:8080]"},
		{"no hint for this zone: none counts", svcs{web()}, slcs{slice(At("10.0.0.1", "", ForZones("b")), At("10.0.0.2", "", ForZones("c")))},
			"default/web:http 10.96.0.1:80/TCP: cluster [10.0.0.1:8080 10.0.0.2:8080]"},
		{"hints for nodes go before zones", svcs{web()}, slcs{slice(At("10.0.0.1", "", ForZones("a"), ForNodes("there")), At("10.0.0.2", "", ForZones("b"), ForNodes("here")))},
			"default/web:http 10.96.0.1:80/TCP: cluster [10.0.0.2:8080]"},
		{"a named port has another number in each slice", svcs{web()}, slcs{
			Slice("web-1", "web", To("http", tcp, 8080), At("10.0.0.1", "")), Slice("web-2", "web", To("http", tcp, 9090), At("10.0.0.2", "")),
			Slice("web-3", "web", To("other", tcp, 1), At("10.0.0.3", "")), Slice("web-4", "web", To("http", udp, 1), At("10.0.0.4", ""))},
			"default/web:http 10.96.0.1:80/TCP: cluster [10.0.0.1:8080 10.0.0.2:9090]"},
		{"slices contradict: who serves counts", svcs{web()}, slcs{
			Slice("web-1", "web", To("http", tcp, 8080), At("10.0.0.1", "", Gone)), Slice("web-2", "web", To("http", tcp, 8080), At("10.0.0.1", "")),
			Slice("web-3", "web", To("http", tcp, 8080), At("10.0.0.1", "", Draining))},
			"default/web:http 10.96.0.1:80/TCP: cluster [10.0.0.1:8080]"},
		{"one port in three protocols", svcs{Service("dns", []string{"10.96.0.10"}, Port("t", tcp, 53, 0), Port("u", udp, 53, 0), Port("s", sctp, 53, 0))},
			slcs{Slice("dns-1", "dns", To("t", tcp, 1053), To("u", udp, 2053), To("s", sctp, 3053), At("10.0.0.1", ""))},
			"default/dns:t 10.96.0.10:53/TCP: cluster [10.0.0.1:1053]\ndefault/dns:u 10.96.0.10:53/UDP: cluster [10.0.0.1:2053]\ndefault/dns:s 10.96.0.10:53/SCTP: cluster [10.0.0.1:3053]"},
		{"both families", svcs{Service("web", []string{"10.96.0.1", "fd96::1"}, Port("", tcp, 80, 30080))},
			slcs{Slice("web-1", "web", To("", tcp, 8080), At("10.0.0.1", "")), Slice("web-2", "web", To("", tcp, 8080), At("fd10::1", ""))},
			"default/web 10.96.0.1:80/TCP: cluster [10.0.0.1:8080]; nodePort 0.0.0.0:30080/TCP: cluster\ndefault/web [fd96::1]:80/TCP: cluster [[fd10::1]:8080]; nodePort [::]:30080/TCP: cluster"},
		{"headless, ExternalName and another proxy's", svcs{Service("a", []string{"None"}, Port("", tcp, 80, 0)),
			Service("b", nil, Port("", tcp, 80, 0), func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }),
			Service("c", []string{"10.96.0.3"}, Port("", tcp, 80, 0), func(s *corev1.Service) { s.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "x"} })}, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := strings.TrimSpace(show(net.Build(c.svcs, c.slices, node))); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// TestBadInput: what an object asks for and does not get, and what is said.
func TestBadInput(t *testing.T) {
	to := To("http", tcp, 8080)
	young := func(s *corev1.Service) { s.CreationTimestamp.Time = s.CreationTimestamp.AddDate(1, 0, 0) }
	web := func(name, ip string, change ...func(*corev1.Service)) *corev1.Service {
		return Service(name, []string{ip}, append(change, Port("http", tcp, 80, 0))...)
	}
	var many []func(*discoveryv1.EndpointSlice)
	for _, ip := range []string{"127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "255.255.255.255", "nonsense", "fd00::5", "1.2.3"} {
		many = append(many, At(ip, ""))
	}
	for _, c := range []struct {
		name   string
		svcs   svcs
		slices slcs
		want   string
		say    []string // service: reason, part of the message
	}{
		{"endpoints nowhere", svcs{web("web", "10.96.0.1")}, slcs{Slice("s", "web", append(many, At("010.0.0.01", ""), to)...)},
			"default/web:http 10.96.0.1:80/TCP: cluster [10.0.0.1:8080]",
			[]string{"web: EndpointAddressInvalid loopback", "web: EndpointAddressInvalid link-local", "web: EndpointAddressInvalid multicast",
				"web: EndpointAddressInvalid unspecified", "web: EndpointAddressInvalid broadcast", "web: EndpointAddressInvalid is not an IP", "web: EndpointAddressInvalid not of the slice's type"}},
		{"endpoints nowhere, IPv6", svcs{web("web", "fd96::1")}, slcs{Slice("s", "web", At("fd10::1", ""), At("::1", ""), At("fe80::1", ""), At("fe80::1%eth0", ""), At("ff02::1", ""), At("::ffff:10.0.0.1", ""), to)},
			"default/web:http [fd96::1]:80/TCP: cluster [[fd10::1]:8080]",
			[]string{"web: EndpointAddressInvalid \"::1\" is a loopback", "web: EndpointAddressInvalid \"fe80::1\" is a link-local", "web: EndpointAddressInvalid multicast", "web: EndpointAddressInvalid \"::ffff:10.0.0.1\" is not of"}},
		{"an externalIP that is a cluster IP", svcs{web("web", "10.96.0.1"), web("evil", "10.96.0.2", External("10.96.0.1"), Port("ssh", tcp, 22, 0))}, nil,
			"default/web:http 10.96.0.1:80/TCP: refuse []\ndefault/evil:ssh 10.96.0.2:22/TCP: refuse []\ndefault/evil:http 10.96.0.2:80/TCP: refuse []",
			[]string{"evil: ServiceAddressConflict 10.96.0.1:22/TCP is a cluster IP"}},
		{"an externalIP that is the node's", svcs{web("web", "10.96.0.1", External("192.168.0.1"))}, nil,
			"default/web:http 10.96.0.1:80/TCP: refuse []; externalIP 192.168.0.1:80/TCP: refuse",
			[]string{"web: ServiceTakesNodeAddress 192.168.0.1:80/TCP"}},
		{"external addresses nowhere", svcs{web("web", "10.96.0.1", External("127.0.0.1", "x"), Balanced("169.254.0.1"))}, nil,
			"default/web:http 10.96.0.1:80/TCP: refuse []",
			[]string{"web: ServiceAddressInvalid loopback", "web: ServiceAddressInvalid \"x\"", "web: ServiceAddressInvalid load balancer address"}},
		{"the older of two has the address", svcs{web("a", "10.96.0.1", External("1.1.1.1"), young), web("b", "10.96.0.2", External("1.1.1.1"))}, nil,
			"default/a:http 10.96.0.1:80/TCP: refuse []\ndefault/b:http 10.96.0.2:80/TCP: refuse []; externalIP 1.1.1.1:80/TCP: refuse",
			[]string{"a: ServiceAddressConflict belongs to default/b"}},
		{"one cluster IP twice", svcs{web("a", "10.96.0.1"), web("b", "10.96.0.1", Port("more", tcp, 81, 0))}, nil,
			"default/a:http 10.96.0.1:80/TCP: refuse []\ndefault/b:more 10.96.0.1:81/TCP: refuse []",
			[]string{"b: ServiceAddressConflict belongs to default/a"}},
		{"one node port twice", svcs{web("a", "10.96.0.1", Port("n", tcp, 1, 30000)), web("b", "10.96.0.2", Port("n", tcp, 1, 30000), Port("m", udp, 1, 30000))}, nil,
			"default/a:n 10.96.0.1:1/TCP: refuse []; nodePort 0.0.0.0:30000/TCP: refuse\ndefault/a:http 10.96.0.1:80/TCP: refuse []\ndefault/b:n 10.96.0.2:1/TCP: refuse []\ndefault/b:m 10.96.0.2:1/UDP: refuse []; nodePort 0.0.0.0:30000/UDP: refuse\ndefault/b:http 10.96.0.2:80/TCP: refuse []",
			[]string{"b: ServiceAddressConflict nodePort 0.0.0.0:30000/TCP belongs to default/a"}},
		{"ports that are none", svcs{Service("web", []string{"10.96.0.1"}, Port("zero", tcp, 0, 0), Port("big", tcp, 65536, 0), Port("odd", "DCCP", 5, 0), Port("np", tcp, 7, 70000), Port("np", tcp, 8, 0))},
			slcs{Slice("s", "web", To("np", tcp, 0), At("10.0.0.1", ""))},
			"default/web:np 10.96.0.1:7/TCP: refuse []",
			[]string{"web: ServicePortInvalid \"zero\" is 0", "web: ServicePortInvalid \"big\" is 65536", "web: ServicePortInvalid DCCP", "web: ServicePortInvalid 70000", "web: ServicePortInvalid twice", "web: EndpointPortInvalid \"np\" is 0"}},
		{"source ranges that nobody can read let nobody in", svcs{web("web", "10.96.0.1", Balanced("2.2.2.2"), Ranges("all of them"))}, nil,
			"default/web:http 10.96.0.1:80/TCP: refuse []; load balancer address 2.2.2.2:80/TCP: refuse; from []",
			[]string{"web: ServiceSourceRangeInvalid"}},
		{"affinity for ever", svcs{web("web", "10.96.0.1", Affinity(86401))}, nil,
			"default/web:http 10.96.0.1:80/TCP: refuse []; sticky 10800", []string{"web: ServiceAffinityInvalid"}},
		{"cluster IPs that are none", svcs{Service("web", []string{"127.0.0.1", "10.96.0.1", "10.96.0.2"}, Port("http", tcp, 80, 0))}, nil,
			"default/web:http 10.96.0.1:80/TCP: refuse []", []string{"web: ServiceAddressInvalid loopback", "web: ServiceAddressInvalid second"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := net.NewModel(node)
			fill(m, c.svcs, c.slices)
			m.Take()
			if got := strings.TrimSpace(show(m.Table())); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			said := 0
			for _, s := range c.svcs {
				said += len(m.Findings(net.Key{Namespace: "default", Name: s.Name}))
			}
			for _, want := range c.say {
				name, rest, _ := strings.Cut(want, ": ")
				reason, part, _ := strings.Cut(rest, " ")
				fs := m.Findings(net.Key{Namespace: "default", Name: name})
				if !slices.ContainsFunc(fs, func(f net.Finding) bool { return string(f.Reason) == reason && strings.Contains(f.Message, part) }) {
					t.Errorf("nothing is said of %s: %v", want, fs)
				}
			}
			if said < len(c.say) {
				t.Errorf("%d findings, want at least %d", said, len(c.say))
			}
		})
	}
}

func fill(m *net.Model, services svcs, endpoints slcs) {
	for _, s := range services {
		m.SetService(s)
	}
	for _, s := range endpoints {
		m.SetSlice(s)
	}
}

// TestHealth: pods are counted once whatever their ports, and only ready ones.
func TestHealth(t *testing.T) {
	lb := func(name string) *corev1.Service {
		return Service(name, []string{"10.96.0.1"}, Balanced("2.2.2.2"), LocalOutside, Port("a", tcp, 80, 0), Port("b", tcp, 81, 0), func(s *corev1.Service) { s.Spec.HealthCheckNodePort = 32000 })
	}
	m := net.NewModel(node)
	m.SetService(lb("web"))
	m.SetSlice(Slice("s", "web", To("a", tcp, 1), To("b", tcp, 2), At("10.0.0.1", "here"), At("10.0.0.2", "here", Draining), At("10.0.0.3", "there")))
	k := net.Key{Namespace: "default", Name: "web"}
	if d := m.Take(); !slices.Equal(d.Health, []net.Key{k}) || m.Table().Health[k] != (net.Health{Service: k, Port: 32000, Local: 1}) {
		t.Errorf("health is %+v, changed %v", m.Table().Health[k], d.Health)
	}
	m.SetService(lb("other"))
	m.Take()
	if len(m.Table().Health) != 1 || m.Table().Health[net.Key{Namespace: "default", Name: "other"}].Port != 32000 {
		t.Errorf("of two that want one port the first by name has it: %v", m.Table().Health)
	}
	m.DeleteService(net.Key{Namespace: "default", Name: "other"})
	m.DeleteSlice(net.Key{Namespace: "default", Name: "s"})
	m.Take()
	if m.Table().Health[k].Local != 0 || m.Table().Health[k].Port != 32000 {
		t.Errorf("health is %+v", m.Table().Health[k])
	}
}
