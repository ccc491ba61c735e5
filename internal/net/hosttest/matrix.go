package hosttest

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nodeagent/internal/net"
	. "nodeagent/internal/net/nettest"
)

// endStates are the states of a service's endpoints; "-name" drains.
var endStates = [][]string{nil, {"here1"}, {"there1"}, {"here1", "here2", "there1", "there2"}, {"-here1", "there1"}, {"-here2", "-there2"}}

// matrix is a service for each state of endpoints, each pair of policies, with and
// without affinity; and source ranges at one of each two that differ by the policy
// inside, which is not asked at an address that has ranges.
type matrix struct {
	services []*corev1.Service
	slices   []*discoveryv1.EndpointSlice
	calls    []call
}

// call is one connection to be made.
type call struct {
	from    *Host // nil: the node
	network string
	to      netip.AddrPort
	affine  bool
}

// Matrix really connects: every kind of address, each family, each pair of traffic
// policies, each state of endpoints, with and without affinity, with and without source
// ranges, from outside, from a pod and from the node; and compares who answers and whom
// it saw with the oracle. By TCP all of it.
//
// What has no connection of its own:
//   - UDP in one of the families, and SCTP in that one only in the other: which protocol
//     it is, rules and sets of all backends tell in one place, the same for both families,
//     so each is asked everywhere but in each family for half of the services, and with
//     affinity for the other half.
//   - A port that no service has, but for one service of each state: what is refused there
//     hangs on the address alone.
//   - Source ranges with each policy inside: see matrix.
func Matrix(t *testing.T, k Kind) {
	hosts := Wire(t)
	for name, h := range hosts {
		if name != "outside" {
			h.Serve(t, 8080)
		}
	}
	m, model := newMatrix(hosts), net.NewModel(ThisNode)
	for _, s := range m.services {
		model.SetService(s)
	}
	for _, s := range m.slices {
		model.SetSlice(s)
	}
	var ranges []netip.Prefix
	if k.Ranges {
		ranges = ServiceRanges
		m.callNobody(hosts)
		for _, p := range ranges {
			model.SetServiceCIDR(&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: p.String()}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{p.String()}}})
		}
	}
	model.Take()
	b := k.New(t)
	_, err := b.Sync(Ctx(t), model.Table())
	must(t, err)
	list := k.List(t)
	c := Cluster{Services: m.services, Slices: m.slices, NodeName: "here", NodeAddrs: NodeAddr, Pods: Pods, Ranges: ranges}
	silent := make(chan call, len(m.calls))
	for _, x := range m.calls {
		if c.Ask(x.from.Addr(x.to.Addr().Is6()), x.protocol(), x.to).What == Dropped {
			silent <- x
			continue
		}
		compare(t, c, hosts, x)
	}
	close(silent)
	t.Logf("%d calls, of which %d should get no answer", len(m.calls), len(silent))
	besides(silent, func(x call) { compare(t, c, hosts, x) })
	if t.Failed() {
		t.Log(list)
	}
}

// besides makes the calls whose answers nobody waits for one after the other.
func besides(calls <-chan call, try func(call)) {
	var all sync.WaitGroup
	for range threads {
		all.Go(func() {
			for x := range calls {
				try(x)
			}
		})
	}
	all.Wait()
}

func newMatrix(hosts map[string]*Host) matrix {
	var m matrix
	for _, affine := range []bool{false, true} {
		for policies, change := range [][]func(*corev1.Service){nil, {LocalInside}, {LocalOutside}, {LocalOutside, LocalInside}} {
			for state, who := range endStates {
				i := len(m.services) + 1
				change := append(slices.Clone(change), Port("s", corev1.ProtocolSCTP, 80, int32(30000+i)))
				if affine {
					change = append(change, Affinity(int32(1000+i%2)))
				}
				if (policies+state)%2 == 1 {
					change = append(change, Ranges(ranges[i/2%len(ranges)]...))
				}
				s := ServiceOf(i, change...)
				m.services, m.slices = append(m.services, s), append(m.slices, Ends(s.Name, hosts, who...)...)
				m.callAll(hosts, s, affine, policies == 0 && !affine, (policies+state)%2 == 0 != affine)
			}
		}
	}
	return m
}

// ranges let some in that the others do not.
var ranges = [][]string{{"192.168.0.0/30", "10.0.0.0/8", "fd00::/126"}, {"192.168.0.9/32", "fd00::8/125"}, {"192.168.0.0/24", "2001:db8::/32"}}

// callAll adds the calls of a service: closed tells whether also of a port that it has
// not, and udp6 in which family it is called by UDP, and in which by SCTP.
func (m *matrix) callAll(hosts map[string]*Host, s *corev1.Service, affine, closed, udp6 bool) {
	for _, v6 := range []bool{false, true} {
		networks := []string{"tcp", "sctp"}
		if v6 == udp6 {
			networks[1] = "udp"
		}
		for _, to := range addressesOf(s, v6) {
			if to.Port() == noPort && !closed {
				continue
			}
			for _, from := range []*Host{hosts["outside"], hosts["here1"], nil} {
				for _, n := range networks {
					m.calls = append(m.calls, call{from, n, to, affine})
				}
			}
		}
	}
}

// callNobody adds calls of addresses of the ranges that no service has.
func (m *matrix) callNobody(hosts map[string]*Host) {
	for _, to := range []string{"10.96.200.200:80", "10.96.255.255:443", "[fd96::8:c8]:80", "[fd96::f:ffff]:443"} {
		for _, from := range []*Host{hosts["outside"], hosts["here1"], nil} {
			for _, n := range []string{"tcp", "udp", "sctp"} {
				m.calls = append(m.calls, call{from, n, netip.MustParseAddrPort(to), false})
			}
		}
	}
}

func (x call) protocol() corev1.Protocol { return corev1.Protocol(strings.ToUpper(x.network)) }

func (x call) String() string {
	name := "the node"
	if x.from != nil {
		name = x.from.Name
	}
	return name + " calls " + x.network + " " + x.to.String()
}

// compare makes one call and holds what happens against the oracle. With affinity it
// calls once more, and wants the same to answer.
func compare(t *testing.T, c Cluster, hosts map[string]*Host, x call) {
	t.Helper()
	v6 := x.to.Addr().Is6()
	f := c.Ask(x.from.Addr(v6), x.protocol(), x.to)
	want, wait := x.answers(hosts, f), Soon
	if f.What == Dropped {
		wait = Never
	}
	got := x.from.Call(x.network, x.to, wait)
	if x.from == nil && x.network != "tcp" && got == unix.EPERM.Error() {
		got = f.What // who sends from the node itself is told at once that the packet went nowhere
	}
	if !slices.Contains(want, got) {
		t.Errorf("%s: %q, want one of %q", x, got, want)
	}
	if x.affine && len(want) > 1 {
		if again := x.from.Call(x.network, x.to, wait); again != got {
			t.Errorf("%s: %q, and then %q", x, got, again)
		}
	}
}

// answers are those that the fate allows: who is called says whom it sees.
func (x call) answers(hosts map[string]*Host, f Fate) []string {
	if f.What != "served" {
		return []string{f.What}
	}
	v6 := x.to.Addr().Is6()
	var out []string
	for _, e := range f.To {
		for _, h := range hosts {
			if h.Addr(v6) != e.Addr() {
				continue
			}
			seen := x.from.Addr(v6)
			if f.Masked || h == x.from {
				if seen = h.GW4; v6 {
					seen = h.GW6
				}
			}
			out = append(out, h.Name+" "+seen.String())
		}
	}
	return out
}
