package nettest

import (
	"fmt"
	"maps"
	"math"
	"math/rand"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"nodeagent/internal/net"
)

// End is how a new connection can end.
type End struct {
	What   string // as in Fate
	To     netip.AddrPort
	Masked bool
}

// Paper is a backend whose kernel is a value of the test's.
type Paper interface {
	// Sync does as a backend that begins: it looks at what is there and puts it right.
	// It tells how much that was.
	Sync(*net.Table) int
	// Apply makes the changes of a diff.
	Apply(*net.Diff)
	// Trace sends the first packet of a connection through what is there, and tells how
	// likely each end is. Where nobody serves the address, What is empty.
	Trace(from netip.Addr, to net.Address) map[End]float64
}

// World is what the papers are for: this node, and which addresses are pods'.
type World struct {
	Node net.Node
	Pods []netip.Prefix
	// Odd are addresses at which a backend does not do as the others with what no service
	// asked for, a port or a protocol. Nil: there are none.
	Odd func(*net.Table, netip.Addr) bool
	// Ranges are those of which cluster IPs may be drawn, of backends that refuse what
	// nobody has of them.
	Ranges []netip.Prefix
}

// Tables has a backend follow histories: after each the changes must have left what a
// backend that begins would write, and every packet must end as the table says, and where
// the objects are sound as they say themselves. It is the same for all backends, which
// thus are compared with each other.
func (w World) Tables(t *testing.T, fresh func(testing.TB) Paper) {
	for seed := range int64(100) {
		w.follow(t, fmt.Sprintf("seed %d", seed), seed%2 == 0, rand.New(rand.NewSource(seed)), 20, fresh)
	}
}

// Fuzz is the same with histories that the fuzzer writes.
func (w World) Fuzz(f *testing.F, fresh func(testing.TB) Paper) {
	f.Add(true, []byte("sound clusters"))
	f.Add(false, []byte("odd ones"))
	f.Fuzz(func(t *testing.T, sound bool, data []byte) {
		w.follow(t, "the fuzzer's", sound, rand.New(NewTape(data)), min(len(data)/600+1, 20), fresh)
	})
}

func (w World) follow(t *testing.T, name string, sound bool, dice *rand.Rand, turns int, fresh func(testing.TB) Paper) {
	t.Helper()
	h := NewHistory(dice, w.Node)
	p := fresh(t)
	p.Sync(h.Model.Table())
	for range turns {
		if sound {
			h.Renew()
		} else {
			for range 1 + h.Dice.Intn(4) {
				h.Step()
			}
		}
		if len(w.Ranges) > 0 && h.Dice.Intn(4) == 0 {
			h.SetRanges(w.Ranges)
		}
		if d := h.Model.Take(); d.Ranges { // as the loop does
			p.Sync(h.Model.Table())
		} else {
			p.Apply(&d)
		}
	}
	if n := p.Sync(h.Model.Table()); n != 0 {
		t.Fatalf("%s: a backend that begins had to do %d things behind changes", name, n)
	}
	w.compare(t, name, h, sound, p)
}

// compare sends packets from everywhere to everything.
func (w World) compare(t *testing.T, name string, h *History, sound bool, p Paper) {
	t.Helper()
	table := h.Model.Table()
	told := Told{table, w.Node.Addrs, w.Pods}
	c := Cluster{
		Services: slices.Collect(maps.Values(h.Services)), Slices: slices.Collect(maps.Values(h.Slices)),
		NodeName: w.Node.Name, Zone: w.Node.Zone, NodeAddrs: w.Node.Addrs, Pods: w.Pods, Ranges: h.Ranges,
	}
	for _, to := range destinations(told) {
		for _, from := range callers(c.Slices, w.Node.Addrs, to.IP.Is6()) {
			want := ends(told.Ask(from, to), from, table)
			if sound {
				asked := c.Ask(from, corev1.Protocol(to.Proto.String()), netip.AddrPortFrom(to.IP, to.Port))
				if x := ends(asked, from, table); !sameEnds(x, want) {
					t.Fatalf("%s: %s calls %s: the table says %v, the objects %v", name, from, to, want, x)
				}
			}
			if w.Odd != nil && told.nobody(to) && w.Odd(table, to.IP) {
				continue
			}
			if got := p.Trace(from, to); !sameEnds(got, want) {
				t.Fatalf("%s: %s calls %s: %s, want %s", name, from, to, show(got), show(want))
			}
		}
	}
}

func show(all map[End]float64) string {
	var out []string
	for e, n := range all {
		out = append(out, fmt.Sprintf("%.3f %+v", n, e))
	}
	slices.Sort(out)
	return fmt.Sprint(out)
}

// ends is a fate by endpoints; each has the same share. One of this node that calls
// itself is masqueraded; what one elsewhere sends to itself does not come by.
func ends(f Fate, from netip.Addr, t *net.Table) map[End]float64 {
	out := map[End]float64{}
	for _, a := range f.To {
		out[End{f.What, a, f.Masked || a.Addr() == from && slices.Contains(t.Here(), from)}] += 1 / float64(len(f.To))
	}
	if len(f.To) == 0 {
		out[End{What: f.What}] = 1
	}
	return out
}

func sameEnds(a, b map[End]float64) bool {
	for e := range a {
		if _, ok := b[e]; !ok && a[e] != 0 {
			return false
		}
	}
	for e, n := range b {
		if math.Abs(a[e]-n) > 1e-6 {
			return false
		}
	}
	return true
}

// callers are some outside, some of the pods, and the node.
func callers(all []*discoveryv1.EndpointSlice, node []netip.Addr, v6 bool) []netip.Addr {
	out := map[netip.Addr]bool{}
	for _, a := range node {
		out[a] = true
	}
	for _, s := range []string{"192.168.0.9", "172.20.0.9", "10.0.99.99", "fd00::9", "fd20::9", "fd10::99"} {
		out[netip.MustParseAddr(s)] = true
	}
	for _, s := range all {
		for _, e := range s.Endpoints {
			if a, err := netip.ParseAddr(e.Addresses[0]); err == nil && a == a.Unmap() && a.IsGlobalUnicast() && a.Zone() == "" {
				out[a] = true
			}
		}
	}
	maps.DeleteFunc(out, func(a netip.Addr, _ bool) bool { return a.Is6() != v6 })
	return slices.SortedFunc(maps.Keys(out), netip.Addr.Compare)
}

// destinations are all addresses of a table, each also at a port and by a protocol by
// which nobody may be there; those of the node at all its addresses; and one of nobody.
func destinations(o Told) []net.Address {
	ports, ips := map[uint16]bool{99: true}, map[netip.Addr]bool{netip.MustParseAddr("8.8.8.8"): true, netip.MustParseAddr("2001:db8:8::8"): true}
	for _, a := range o.NodeAddrs {
		ips[a] = true
	}
	for _, e := range o.Table.Entries {
		ports[e.Addr.Port], ips[e.Addr.IP] = true, true
		for _, x := range e.Fronts {
			ports[x.Address.Port] = true
			if x.Kind != net.NodePort {
				ips[x.Address.IP] = true
			}
		}
	}
	for _, p := range o.Table.Ranges() {
		b := p.Addr().AsSlice()
		b[len(b)-1] = 250
		a, _ := netip.AddrFromSlice(b)
		ips[a] = true
	}
	var out []net.Address
	for _, ip := range slices.SortedFunc(maps.Keys(ips), netip.Addr.Compare) {
		for _, port := range slices.Sorted(maps.Keys(ports)) {
			for _, proto := range []net.Proto{net.TCP, net.UDP, net.SCTP} {
				out = append(out, net.Address{IP: ip, Port: port, Proto: proto})
			}
		}
	}
	return out
}
