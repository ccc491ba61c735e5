package hosttest

import (
	"context"
	"fmt"
	stdnet "net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"nodeagent/internal/net"
	. "nodeagent/internal/net/nettest"
)

// What the tests call the cluster's addresses and this node.
var (
	Pods     = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("fd10::/48")}
	NodeAddr = []netip.Addr{netip.MustParseAddr("192.168.0.1"), netip.MustParseAddr("fd00::1")}
	ThisNode = net.Node{Name: "here", Addrs: NodeAddr}
)

// Programmer is what the tests need of a backend.
type Programmer interface {
	Sync(context.Context, *net.Table) (net.Report, error)
	Apply(context.Context, *net.Table, *net.Diff) error
}

// ServiceRanges are those of which cluster IPs are drawn.
var ServiceRanges = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd96::/108")}

// Kind is a kind of backend.
type Kind struct {
	New   func(testing.TB) Programmer // for Pods; it cleans up behind itself
	List  func(testing.TB) string     // all rules, for who reads a failure
	Flush func(testing.TB)            // takes all rules away, as somebody else may
	// Ranges tells that what nobody has of the ranges of which cluster IPs are drawn is
	// refused.
	Ranges bool
}

// How long to wait for answers.
const (
	Soon  = 5 * time.Second        // by then an answer is there
	Never = 150 * time.Millisecond // by then none has come
)

// Ctx is for as long as a test may take.
func Ctx(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// Ends is a slice of both families for a service, its endpoints by host name;
// "-name" drains.
func Ends(service string, hosts map[string]*Host, names ...string) []*discoveryv1.EndpointSlice {
	var out []*discoveryv1.EndpointSlice
	for _, v6 := range []bool{false, true} {
		parts := []func(*discoveryv1.EndpointSlice){To("t", corev1.ProtocolTCP, 8080), To("u", corev1.ProtocolUDP, 8080), To("s", corev1.ProtocolSCTP, 8080)}
		for _, n := range names {
			name, drains := strings.CutPrefix(n, "-")
			node := "there"
			if strings.HasPrefix(name, "here") {
				node = "here"
			}
			var change []func(*discoveryv1.Endpoint)
			if drains {
				change = append(change, Draining)
			}
			parts = append(parts, At(hosts[name].Addr(v6).String(), node, change...))
		}
		out = append(out, Slice(fmt.Sprintf("%s-%t", service, v6), service, parts...))
	}
	return out
}

// ServiceOf has every kind of address; i keeps services apart.
func ServiceOf(i int, change ...func(*corev1.Service)) *corev1.Service {
	return Service(fmt.Sprintf("s%d", i), []string{fmt.Sprintf("10.96.0.%d", i), fmt.Sprintf("fd96::%d", i)}, append(change,
		Port("t", corev1.ProtocolTCP, 80, int32(30000+i)), Port("u", corev1.ProtocolUDP, 80, int32(30000+i)),
		External(fmt.Sprintf("1.1.1.%d", i), fmt.Sprintf("2001:db8:1::%d", i)),
		Balanced(fmt.Sprintf("2.2.2.%d", i), fmt.Sprintf("2001:db8:2::%d", i)))...)
}

// noPort is one that no service has.
const noPort = 81

// addressesOf are the addresses of a service in one family, and one at which it is not.
func addressesOf(s *corev1.Service, v6 bool) []netip.AddrPort {
	var out []netip.AddrPort
	add := func(ip string, port int32) {
		if a := netip.MustParseAddr(ip); a.Is6() == v6 {
			out = append(out, netip.AddrPortFrom(a, uint16(port)))
		}
	}
	for _, ip := range append(slices.Clone(s.Spec.ClusterIPs), s.Spec.ExternalIPs...) {
		add(ip, 80)
	}
	for _, ip := range s.Spec.ClusterIPs {
		add(ip, noPort)
	}
	for _, i := range s.Status.LoadBalancer.Ingress {
		add(i.IP, 80)
	}
	for _, a := range NodeAddr {
		add(a.String(), s.Spec.Ports[0].NodePort)
	}
	return out
}

// Balance: three endpoints get a third each, within five standard
// deviations.
func Balance(t *testing.T, k Kind) {
	hosts := Wire(t)
	got := map[string]int{}
	var slices []*discoveryv1.EndpointSlice
	for _, n := range []string{"here1", "here2", "there1"} {
		hosts[n].Serve(t, 8080)
	}
	slices = append(slices, Ends("s1", hosts, "here1", "here2", "there1")...)
	b := k.New(t)
	_, err := b.Sync(Ctx(t), net.Build([]*corev1.Service{ServiceOf(1)}, slices, ThisNode))
	must(t, err)
	const calls = 600
	for range calls {
		name, _, _ := strings.Cut(hosts["outside"].Call("tcp", netip.MustParseAddrPort("10.96.0.1:80"), Soon), " ")
		got[name]++
	}
	for name, n := range got {
		if n < calls/3-58 || n > calls/3+58 { // sqrt(600 * 1/3 * 2/3) = 11.5
			t.Errorf("%s answered %d of %d", name, n, calls)
		}
	}
	if len(got) != 3 {
		t.Errorf("who answered: %v", got)
	}
}

// Affine: a client keeps its endpoint at each address of the service, also
// while others come and go, until its own goes.
func Affine(t *testing.T, k Kind) {
	hosts := Wire(t)
	all := []string{"here1", "here2", "here3", "there1", "there2"}
	for _, n := range all {
		hosts[n].Serve(t, 8080)
	}
	m := net.NewModel(ThisNode)
	m.SetService(ServiceOf(1, Affinity(100)))
	b := k.New(t)
	set := func(names ...string) {
		for _, s := range Ends("s1", hosts, names...) {
			m.SetSlice(s)
		}
		d := m.Take()
		must(t, b.Apply(Ctx(t), m.Table(), &d))
	}
	set(all...)
	defer func() {
		if t.Failed() {
			t.Log(k.List(t))
		}
	}()
	for _, from := range []*Host{hosts["outside"], hosts["here1"], nil} {
		for _, v6 := range []bool{false, true} {
			for _, to := range addressesOf(ServiceOf(1), v6) {
				if to.Port() == noPort {
					continue
				}
				set(all...)
				mine := sameAnswer(t, from, to)
				others := slices.DeleteFunc(slices.Clone(all), func(n string) bool { return n == mine })
				set(mine, others[3])
				if now := sameAnswer(t, from, to); now != mine {
					t.Errorf("others went, and the client of %s at %s is led to %s", mine, to, now)
				}
				set(others...)
				if now := sameAnswer(t, from, to); !slices.Contains(others, now) {
					t.Errorf("its endpoint %s at %s went, and the client is led to %q", mine, to, now)
				}
			}
		}
	}
}

// sameAnswer calls some times and returns who answers, always the same.
func sameAnswer(t *testing.T, from *Host, to netip.AddrPort) string {
	t.Helper()
	who := ""
	for range 6 {
		name, _, _ := strings.Cut(from.Call("tcp", to, Soon), " ")
		if who == "" {
			who = name
		}
		if name != who {
			t.Errorf("a client of %s is led to %s by %s", who, name, to)
		}
	}
	return who
}

// Survive: neither changes of the service nor a damaged table cut
// a connection.
func Survive(t *testing.T, k Kind) {
	hosts := Wire(t)
	hosts["there1"].Serve(t, 8080)
	m := net.NewModel(ThisNode)
	b := k.New(t)
	m.SetService(ServiceOf(1))
	for _, s := range Ends("s1", hosts, "there1") {
		m.SetSlice(s)
	}
	d := m.Take()
	must(t, b.Apply(Ctx(t), m.Table(), &d))
	c, err := hosts["outside"].Dial("tcp", netip.MustParseAddrPort("192.168.0.1:30001"), Soon)
	must(t, err)
	defer c.Close()
	hear := func() {
		t.Helper()
		buf := make([]byte, 100)
		_ = c.SetDeadline(time.Now().Add(Soon))
		if n, err := c.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), "there1") {
			t.Fatalf("heard %q, %v", buf[:n], err)
		}
		acknowledge(t, c)
	}
	hear()
	ask := func() {
		t.Helper()
		_, err := c.Write([]byte("x"))
		must(t, err)
		hear()
	}
	ask()
	k.Flush(t)
	_, err = b.Sync(Ctx(t), m.Table())
	must(t, err)
	ask()
	m.DeleteService(net.Key{Namespace: "default", Name: "s1"})
	d = m.Take()
	must(t, b.Apply(Ctx(t), m.Table(), &d))
	ask()
}

// acknowledge makes the kernel do so at once: else it may happen while nobody translates
// the packet, and the node would reset a connection that it does not know.
func acknowledge(t *testing.T, c stdnet.Conn) {
	t.Helper()
	raw, err := c.(*stdnet.TCPConn).SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) }))
	must(t, err)
}
