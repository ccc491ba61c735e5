package nftables

import (
	"fmt"
	"math/rand"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"nodeagent/internal/net"
	"nodeagent/internal/net/hosttest"
	. "nodeagent/internal/net/nettest"
	"nodeagent/internal/net/proxy"
	"nodeagent/internal/test/need"
)

// The loop can use it.
var _ proxy.Backend = (*Backend)(nil)

// TestPartialEqualsFull: whatever the history of changes, a backend that starts
// anew finds nothing to do, and chains are neither missing nor left over.
func TestPartialEqualsFull(t *testing.T) {
	need.Have(t, need.Root)
	for seed := range int64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dice := rand.New(rand.NewSource(seed))
			m := net.NewModel(thisNode)
			b := backend(t, Config{})
			for i := range 60 {
				for range 1 + dice.Intn(4) {
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
				d := m.Take()
				must(t, b.Apply(hosttest.Ctx(t), m.Table(), &d))
				if !b.known {
					t.Fatal("the backend does not trust itself")
				}
				if i%20 != 19 {
					continue
				}
				fresh, err := New(b.cfg)
				must(t, err)
				r, err := fresh.Sync(hosttest.Ctx(t), m.Table())
				must(t, err)
				if r != (net.Report{}) {
					t.Fatalf("step %d: a full sync had to do %+v", i, r)
				}
				fresh.Close()
			}
		})
	}
}

// TestOneChange: one endpoint among ten thousand of its service costs two or
// three elements, one that is replaced two.
func TestOneChange(t *testing.T) {
	need.Have(t, need.Root)
	m := net.NewModel(thisNode)
	m.SetService(Service("big", []string{"10.96.0.1"}, Port("p", corev1.ProtocolTCP, 80, 0)))
	var all []*discoveryv1.EndpointSlice
	for i := range 10 {
		parts := []func(*discoveryv1.EndpointSlice){To("p", corev1.ProtocolTCP, 8080)}
		for j := range 1000 {
			parts = append(parts, At(fmt.Sprintf("10.%d.%d.%d", 1+i, j/250, j%250+1), ""))
		}
		all = append(all, Slice(fmt.Sprintf("big-%d", i), "big", parts...))
		m.SetSlice(all[i])
	}
	b := backend(t, Config{})
	d := m.Take()
	must(t, b.Apply(hosttest.Ctx(t), m.Table(), &d))
	for _, c := range []struct {
		name   string
		change func(*discoveryv1.EndpointSlice)
		writes int // elements that go and that come
	}{
		{"one goes", func(s *discoveryv1.EndpointSlice) { s.Endpoints = s.Endpoints[1:] }, 5}, // its own and the last one's number, and the service's chain
		{"one comes", func(s *discoveryv1.EndpointSlice) { At("10.99.0.1", "")(s) }, 3},
		{"one is replaced", func(s *discoveryv1.EndpointSlice) { s.Endpoints[5].Addresses[0] = "10.99.0.2" }, 2},
	} {
		c.change(all[0])
		m.SetSlice(all[0])
		d := m.Take()
		have, want := elements{}, elements{}
		orders := b.orders[pool{addr: d.Entries[0].New.Addr}]
		b.change(d.Entries[0], have, want)
		stale, missing := differ(have, want)
		if len(stale)+len(missing) != c.writes {
			t.Errorf("%s: %d elements go and %d come, want %d in all", c.name, len(stale), len(missing), c.writes)
		}
		b.setOrder(pool{addr: d.Entries[0].New.Addr}, orders, nil) // as if nothing had happened
		must(t, b.Apply(hosttest.Ctx(t), m.Table(), &d))
	}
	fresh, err := New(b.cfg)
	must(t, err)
	defer fresh.Close()
	if r, err := fresh.Sync(hosttest.Ctx(t), m.Table()); err != nil || r != (net.Report{}) {
		t.Errorf("a daemon that starts again has to do %+v, %v", r, err)
	}
}

// TestHealing: whatever somebody else does to the table is seen and mended, and
// what is not ours stays.
func TestHealing(t *testing.T) {
	need.Have(t, need.Root)
	services, endpoints := Many(50, 3)
	services = append(services, hosttest.ServiceOf(1, LocalOutside, Affinity(60), Ranges("192.168.0.0/24")))
	m := Filled(thisNode, services, endpoints)
	b := backend(t, Config{})
	_, err := b.Sync(hosttest.Ctx(t), m.Table())
	must(t, err)
	nft(t, "add table inet foreign { set s { type ipv4_addr; elements = { 1.2.3.4 } }; chain c { counter drop; }; }")
	t.Cleanup(func() { nft(t, "delete table inet foreign") })
	foreign := nft(t, "list table inet foreign")
	whole := nft(t, "list table inet nodeagent-services")

	wakes := hosttest.Watch(t, b)
	woken := func(what string) {
		t.Helper()
		select {
		case <-wakes:
		case <-time.After(10 * time.Second):
			t.Fatalf("nothing is told of: %s", what)
		}
	}
	woken("the start")
	for _, what := range []string{
		"delete table inet nodeagent-services",
		"flush table inet nodeagent-services",
		"flush chain inet nodeagent-services nat-prerouting",
		"flush map inet nodeagent-services services4",
		"flush map inet nodeagent-services picks4",
		"flush map inet nodeagent-services reasons6",
		"delete element inet nodeagent-services cluster-ips4 { 10.96.0.1 }",
		"add element inet nodeagent-services cluster-ips4 { 10.96.77.77 }",
		"add rule inet nodeagent-services services drop",
		"insert rule inet nodeagent-services cluster4-3 drop",
		"add chain inet nodeagent-services extra",
		"add chain inet nodeagent-services cluster4-77",
		"add chain inet nodeagent-services guard-prerouting { policy drop ; }",
		"add table inet nodeagent-services { flags dormant ; }",
		"replace rule inet nodeagent-services refuse handle @reset meta l4proto tcp reject with icmpx type admin-prohibited",
		`replace rule inet nodeagent-services mark-outsiders handle @comes meta mark set meta mark | 0x00008000 comment "what comes back must come through this node"`,
		"flush ruleset",
	} {
		nft(t, withHandle(t, strings.Fields(what))...)
		if what == "flush ruleset" {
			nft(t, "add table inet foreign { set s { type ipv4_addr; elements = { 1.2.3.4 } }; chain c { counter drop; }; }")
		}
		woken(what)
		r, err := b.Sync(hosttest.Ctx(t), m.Table())
		must(t, err)
		if r == (net.Report{}) {
			t.Errorf("%s: nothing was mended", what)
		}
		if r, err = b.Sync(hosttest.Ctx(t), m.Table()); err != nil || r != (net.Report{}) {
			t.Errorf("%s: a second sync had to do %+v, %v", what, r, err)
		}
		if now := nft(t, "list table inet nodeagent-services"); sorted(now) != sorted(whole) {
			t.Errorf("%s: mended the table is another one:\n%s", what, now)
		}
	}
	if now := nft(t, "list table inet foreign"); now != foreign {
		t.Errorf("somebody else's table is %s, was %s", now, foreign)
	}
	// Our own changes wake nobody.
	drain(wakes)
	m.DeleteService(net.Key{Namespace: "default", Name: "s1"})
	d := m.Take()
	must(t, b.Apply(hosttest.Ctx(t), m.Table(), &d))
	nft(t, "add table inet sentinel")
	nft(t, "delete table inet sentinel")
	select {
	case <-wakes:
		t.Error("our own change woke us")
	case <-time.After(100 * time.Millisecond):
	}
}

// withHandle puts a rule's handle in the place of a word that it has, behind an @.
func withHandle(t *testing.T, words []string) []string {
	t.Helper()
	for i, w := range words {
		text, named := strings.CutPrefix(w, "@")
		if !named {
			continue
		}
		for line := range strings.Lines(nft(t, "-a", "list", "chain", "inet", words[3], words[4])) {
			if rule, handle, ok := strings.Cut(strings.TrimSpace(line), " # handle "); ok && strings.Contains(rule, text) {
				words[i] = handle
			}
		}
	}
	return words
}

func drain(c chan struct{}) {
	for {
		select {
		case <-c:
		default:
			return
		}
	}
}

// sorted compares listings whatever the order of elements.
func sorted(s string) string {
	words := strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" \t\n,{}", r) })
	slices.Sort(words)
	return strings.Join(words, " ")
}

// TestSurprise: a change that meets another table than expected ends in a sync.
func TestSurprise(t *testing.T) {
	need.Have(t, need.Root)
	m := net.NewModel(thisNode)
	b := backend(t, Config{})
	m.SetService(hosttest.ServiceOf(1))
	m.SetSlice(Slice("s", "s1", To("t", corev1.ProtocolTCP, 8080), At("10.0.0.1", "")))
	d := m.Take()
	must(t, b.Apply(hosttest.Ctx(t), m.Table(), &d))
	nft(t, "flush", "ruleset")
	m.SetSlice(Slice("s", "s1", To("t", corev1.ProtocolTCP, 8080), At("10.0.0.2", "")))
	d = m.Take()
	must(t, b.Apply(hosttest.Ctx(t), m.Table(), &d))
	if !strings.Contains(nft(t, "list", "table", "inet", "nodeagent-services"), "10.0.0.2 . 8080") {
		t.Error("the change is not there")
	}
}

// TestReadable: what a person sees of one service is what docs/services.md
// shows.
func TestReadable(t *testing.T) {
	need.Have(t, need.Root)
	b := backend(t, Config{})
	s := Service("web", []string{"10.96.0.10"}, Port("http", corev1.ProtocolTCP, 80, 30080))
	evil := Service("evil", []string{"10.96.0.11"}, Port("x", corev1.ProtocolTCP, 80, 0))
	evil.Name = "quote\" } flush ruleset \x1b[31m" + strings.Repeat("long", 60)
	sl := Slice("web-1", "web", To("http", corev1.ProtocolTCP, 8080), At("10.0.0.5", "here"), At("10.0.7.5", "there"))
	_, err := b.Sync(hosttest.Ctx(t), net.Build([]*corev1.Service{s, evil}, []*discoveryv1.EndpointSlice{sl}, thisNode))
	must(t, err)
	list := nft(t, "list", "table", "inet", "nodeagent-services")
	for _, want := range []string{
		`10.96.0.10 . tcp . 80 comment "default/web:http cluster IP" : 0x00000180`,
		`tcp . 30080 comment "default/web:http nodePort" : 0x00000280`,
		`10.96.0.11 . tcp . 80 comment "default/quote`,
		`0x00000180 : goto cluster4-2`,
		`0x00000280 : goto nodeport4-2`,
		`meta priority set ip daddr . meta l4proto . th dport map @services4 meta priority vmap @picks4`,
		`meta priority set ip daddr . meta l4proto . th dport map @unserved4 meta priority vmap @reasons4`,
		`10.96.0.10 . tcp . 80 . 0x80000001 : 10.0.7.5 . 8080`,
		`meta priority set numgen random mod 2 offset 2147483648 goto to-endpoint4`,
		`dnat ip to ip daddr . meta l4proto . th dport . meta priority map @endpoints4`,
	} {
		if !strings.Contains(list, want) {
			t.Errorf("nobody can read %s in\n%s", want, list)
		}
	}
	for what, lines := range shown(t) {
		_, there, _ := strings.Cut(list, "\t"+what+" {\n")
		there, _, _ = strings.Cut(there, "\n\t}")
		for _, want := range lines {
			if !strings.Contains(there, want) {
				t.Errorf("docs/services.md shows %q of %s, where there is\n%s", want, what, there)
			}
		}
	}
	if strings.Contains(list, "flush ruleset \x1b") || strings.ContainsRune(list, '\x1b') {
		t.Error("a name is not made safe")
	}
	if os.Getenv("SHOW") != "" {
		fmt.Println(list)
	}
}

// TestReadableAffinity: so is a service that keeps its clients. nft 1.0.6 prints the name
// of an endpoint in one order of bytes as a key, and in the other as a value.
func TestReadableAffinity(t *testing.T) {
	need.Have(t, need.Root)
	b := backend(t, Config{})
	s := Service("web", []string{"10.96.0.10"}, Affinity(10_800), Port("http", corev1.ProtocolTCP, 80, 0))
	sl := Slice("web-1", "web", To("http", corev1.ProtocolTCP, 8080), At("10.0.0.5", "here"), At("10.0.7.5", "there"))
	_, err := b.Sync(hosttest.Ctx(t), net.Build([]*corev1.Service{s}, []*discoveryv1.EndpointSlice{sl}, thisNode))
	must(t, err)
	list := nft(t, "list", "table", "inet", "nodeagent-services")
	for _, want := range []string{
		`10.96.0.10 . tcp . 80 . 0x80000000 : 10.0.0.5 . 8080`,
		`10.96.0.10 . tcp . 80 . 0xb78b3f1f : 10.0.0.5 . 8080`,
		`10.96.0.10 . tcp . 80 . 0x80000000 : 0x1f3f8bb7`,
		`0x00000180 : goto cluster4-2-10800s`,
		`jump recall4 comment "is the client remembered?"`,
		`meta priority & 2000:0 == 2000:0 jump remember4-10800s comment`,
		`jump forget4 comment`,
		`meta priority set numgen random mod 2 offset 2147483648 jump choose4 comment "another one is chosen"`,
		`goto remember4-10800s comment`,
		`meta priority set ip saddr . ip daddr . meta l4proto . th dport map @affinity4`,
		`update @affinity4 { ip saddr . ip daddr . meta l4proto . th dport timeout 3h : meta priority } comment "if there is room"`,
	} {
		if !strings.Contains(list, want) {
			t.Errorf("nobody can read %s in\n%s", want, list)
		}
	}
}

// shown is what docs/services.md shows of one service: of maps, sets and chains the
// elements and rules.
func shown(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/services.md")
	must(t, err)
	_, section, _ := strings.Cut(string(text), "## One service\n")
	section, _, _ = strings.Cut(section, "\n## ")
	out, what := map[string][]string{}, ""
	for i, block := range strings.Split(section, "```") {
		if i%2 == 0 {
			continue
		}
		for line := range strings.Lines(block) {
			if begin, rest, ok := strings.Cut(line, " {"); ok {
				what, line = begin, rest
			}
			for _, part := range strings.Split(strings.Trim(line, " \t\n}"), ", ") {
				if part = strings.Trim(part, " ,"); part != "" {
					out[what] = append(out[what], part)
				}
			}
		}
	}
	if len(out) < 8 {
		t.Fatalf("it shows %v", out)
	}
	return out
}

// TestArrange: orders are permutations, and who can stays.
func TestArrange(t *testing.T) {
	at := func(ns ...int) []netip.AddrPort {
		var out []netip.AddrPort
		for _, n := range ns {
			a := netip.AddrPort{}
			if n > 0 {
				a = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 80)
			}
			out = append(out, a)
		}
		return out
	}
	for _, c := range []struct{ have, want, out []netip.AddrPort }{
		{nil, at(1, 2), at(1, 2)},
		{at(1, 2, 3), at(2, 3), at(3, 2)},
		{at(3, 2), at(2, 3, 4), at(3, 2, 4)},
		{at(3, 2, 4), at(2, 4, 9), at(9, 2, 4)},
		{at(3, 0, 3, 2), at(2, 3), at(3, 2)},
		{at(1, 2), nil, at()},
	} {
		if got := arrange(c.have, c.want); !slices.Equal(got, c.out) {
			t.Errorf("arrange(%v, %v) = %v, want %v", c.have, c.want, got, c.out)
		}
	}
}
