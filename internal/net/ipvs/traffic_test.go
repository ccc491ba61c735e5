package ipvs

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	lvs "github.com/moby/ipvs"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/net"
	"nodeagent/internal/net/hosttest"
	. "nodeagent/internal/net/nettest"
	"nodeagent/internal/test/need"
)

func backend(t testing.TB, cfg Config) *Backend {
	t.Helper()
	need.Have(t, need.Root, need.IPVS)
	if cfg.Pods == nil {
		cfg.Pods, cfg.Addrs = hosttest.Pods, hosttest.NodeAddr
	}
	b, err := New(cfg)
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), need.Slow(10*time.Second))
		defer cancel()
		if err := b.Remove(ctx); err != nil {
			t.Error(err)
		}
		b.Close()
	})
	return b
}

// dump is all that the kernel holds, for who reads a failure.
func dump(t testing.TB) string {
	var out strings.Builder
	for _, line := range []string{"ipvsadm -Ln", "ipset save", "iptables-save", "ip6tables-save", "ip -brief addr"} {
		words := strings.Fields(line)
		text, err := exec.Command(words[0], words[1:]...).CombinedOutput()
		out.WriteString("# " + line + "\n" + string(text))
		if err != nil {
			out.WriteString(err.Error() + "\n")
		}
	}
	return out.String()
}

// steady is what of it does not change by itself.
func steady(t testing.TB) string {
	t.Helper()
	var out []string
	server := ""
	for line := range strings.Lines(dump(t)) {
		words := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "*") || line == "COMMIT\n" || strings.HasPrefix(line, "# ") || strings.HasPrefix(line, ":") && !strings.Contains(line, chainPrefix):
			continue // tables that nobody uses come and go
		case strings.HasPrefix(line, ":"):
			line, _, _ = strings.Cut(line, " [")
		case strings.HasPrefix(line, defaultDevice):
			slices.Sort(words)
			line = strings.Join(words, " ")
		case len(words) == 6 && words[0] == "->":
			line = server + " " + strings.Join(words[:4], " ")
		case slices.Contains([]string{"TCP", "UDP", "FWM"}, strings.TrimSpace(line)[:min(3, len(strings.TrimSpace(line)))]):
			server = strings.Join(words, " ")
		}
		out = append(out, strings.TrimSpace(line))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// kind is what all backends are tested by.
var kind = hosttest.Kind{
	New:  func(t testing.TB) hosttest.Programmer { return backend(t, Config{}) },
	List: dump,
	Flush: func(t testing.TB) {
		for _, name := range []string{"iptables", "ip6tables"} {
			for _, table := range tables {
				command(t, name, "-t", table, "-F")
				command(t, name, "-t", table, "-X")
			}
		}
		command(t, "ipset", "flush")
		command(t, "ip", "link", "del", defaultDevice)
		// "ipvsadm -C" ends connections: the kernel does so by itself when their
		// servers go, since we tell it that flows to nobody shall not stay.
	},
}

func ipvs(t *testing.T) {
	t.Helper()
	need.Have(t, need.Root, need.IPVS)
}

func TestMatrix(t *testing.T) { ipvs(t); hosttest.Matrix(t, kind) }

// TestInvalid: what belongs to no connection does not pass, unless it may.
func TestInvalid(t *testing.T) {
	ipvs(t)
	hosttest.Invalid(t, func(t testing.TB, keep bool) hosttest.Programmer { return backend(t, Config{KeepInvalid: keep}) })
}

// TestHeld: who explains is told what the kernel has.
func TestHeld(t *testing.T) {
	ipvs(t)
	for _, a := range []string{"192.0.2.10/32", "2001:db8:9::10/128"} { // a node port is one of the node's addresses
		command(t, "ip", "addr", "add", a, "dev", "lo")
		t.Cleanup(func() { command(t, "ip", "addr", "del", a, "dev", "lo") })
	}
	k := kind
	k.Flush = func(t testing.TB) { kind.Flush(t); command(t, "ipvsadm", "-C") }
	hosttest.Held(t, "ipvs", k)
}

func TestBalance(t *testing.T) { ipvs(t); hosttest.Balance(t, kind) }

func TestAffinity(t *testing.T) { ipvs(t); hosttest.Affine(t, kind) }

func TestConnectionsSurvive(t *testing.T) { ipvs(t); hosttest.Survive(t, kind) }

// scene is a service with endpoints, on a node with hosts.
type scene struct {
	*testing.T
	hosts map[string]*hosttest.Host
	m     *net.Model
	b     *Backend
}

func newScene(t *testing.T, cfg Config, change ...func(*corev1.Service)) *scene {
	t.Helper()
	ipvs(t)
	s := &scene{t, hosttest.Wire(t), net.NewModel(hosttest.ThisNode), backend(t, cfg)}
	for _, n := range []string{"here1", "here2", "there1"} {
		s.hosts[n].Serve(t, 8080)
	}
	s.m.SetService(hosttest.ServiceOf(1, change...))
	return s
}

func (s *scene) set(names ...string) {
	s.Helper()
	for _, x := range hosttest.Ends("s1", s.hosts, names...) {
		s.m.SetSlice(x)
	}
	d := s.m.Take()
	must(s, s.b.Apply(hosttest.Ctx(s), s.m.Table(), &d))
}

func (s *scene) sync() net.Report {
	s.Helper()
	r, err := s.b.Sync(hosttest.Ctx(s), s.m.Table())
	must(s, err)
	return r
}

// TestRestartChangesNothing: neither a second look nor a new start finds anything
// to do; what is not ours stays, also when all that is ours is removed.
func TestRestartChangesNothing(t *testing.T) {
	s := newScene(t, Config{TCP: 700 * time.Second}, LocalOutside, Affinity(1000))
	command(t, "ipvsadm", "-A", "-t", "9.9.9.9:80", "-s", "wlc")
	command(t, "ipvsadm", "-a", "-t", "9.9.9.9:80", "-r", "10.0.1.9:1", "-m")
	command(t, "ipset", "create", "OTHERS", "hash:ip")
	t.Cleanup(func() { command(t, "ipvsadm", "-C"); command(t, "ipset", "destroy", "OTHERS") })
	command(t, "iptables", "-A", "INPUT", "-p", "sctp")
	t.Cleanup(func() { command(t, "iptables", "-F", "INPUT") })
	before := steady(t)
	s.set("here1", "there1")
	held := steady(t)
	if r := s.sync(); r != (net.Report{}) {
		t.Errorf("a second look found %+v", r)
	}
	fresh, err := New(s.b.cfg)
	must(t, err)
	defer fresh.Close()
	if r, err := fresh.Sync(hosttest.Ctx(t), s.m.Table()); err != nil || r != (net.Report{}) {
		t.Errorf("a new start found %+v, %v", r, err)
	}
	if now := steady(t); now != held {
		t.Errorf("held was\n%s\nand is\n%s", held, now)
	}
	if out := command(t, "ipvsadm", "-L", "--timeout"); !strings.Contains(out, "700") {
		t.Errorf("the kernel's timeouts: %s", out)
	}
	if v, err := os.ReadFile("/proc/sys/net/ipv4/vs/conntrack"); err != nil || string(v) != "1\n" {
		t.Errorf("net.ipv4.vs.conntrack is %q, %v", v, err)
	}
	must(t, s.b.Remove(hosttest.Ctx(t)))
	if now := steady(t); now != before {
		t.Errorf("before all was\n%s\nand left is\n%s", before, now)
	}
}

// anotherWay is a damage that ipvsadm cannot do where ports differ.
const anotherWay = "packets are routed to endpoints instead of being translated"

// routeDirectly changes the way to the first endpoint of a virtual server.
func routeDirectly(t *testing.T, address string) {
	t.Helper()
	h, err := lvs.New("")
	must(t, err)
	defer h.Close()
	all, err := h.GetServices()
	must(t, err)
	for _, s := range all {
		if s.Address.String() != address {
			continue
		}
		ends, err := h.GetDestinations(s)
		must(t, err)
		ends[0].ConnectionFlags = lvs.ConnectionFlagDirectRoute
		must(t, h.UpdateDestination(s, ends[0]))
		return
	}
	t.Fatalf("there is no virtual server at %s", address)
}

// TestHealing: whatever of ours somebody takes away, Watch tells of it, and a Sync
// puts it back; and what we do ourselves is no news.
func TestHealing(t *testing.T) {
	s := newScene(t, Config{}, LocalOutside)
	s.set("here1", "there1")
	ctx, cancel := context.WithCancel(t.Context())
	wakes, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		ended <- s.b.Watch(ctx, func() {
			select {
			case wakes <- struct{}{}:
			default:
			}
		})
	}()
	defer func() { cancel(); must(t, <-ended) }()
	<-wakes
	s.sync()
	held := steady(t)
	for _, damage := range []string{
		"ipvsadm -D -t 10.96.0.1:80", "ipvsadm -D -u [fd96::1]:80", "ipvsadm -d -t 10.96.0.1:80 -r 10.0.1.9:8080",
		"ipvsadm -e -t 10.96.0.1:80 -r 10.0.1.9:8080 -m -w 7", "ipvsadm -C", "ip addr del 10.96.0.1/32 dev kube-ipvs0",
		"ip addr add 10.96.7.7/32 dev kube-ipvs0", "ip link set kube-ipvs0 down", "ip link del kube-ipvs0", "ipset flush NODEAGENT-SERVED",
		"iptables -F NODEAGENT-IPVS-CLOSED", "ip6tables -t mangle -D INPUT 1", anotherWay,
	} {
		begun := time.Now()
		if damage == anotherWay {
			routeDirectly(t, "10.96.0.1")
		} else {
			words := strings.Fields(damage)
			command(t, words[0], words[1:]...)
		}
		select {
		case <-wakes:
			t.Logf("%s: seen after %v", damage, time.Since(begun))
		case <-time.After(need.Slow(20 * time.Second)):
			t.Fatalf("%s: nobody tells", damage)
		}
		s.sync()
		if now := steady(t); now != held {
			t.Errorf("%s: held was\n%s\nand is\n%s", damage, held, now)
		}
		select { // what was told twice
		case <-wakes:
		default:
		}
	}
	s.set("there1")
	s.set("here1", "here2", "there1")
	if s.b.changedNow(t) {
		t.Error("our own changes are news")
	}
}

// changedNow looks once at everything.
func (b *Backend) changedNow(t *testing.T) bool {
	return b.changed(hosttest.Ctx(t), map[string]uint64{}, true)
}

// TestDraining: an endpoint that goes keeps its connections and gets no new ones;
// when they have ended, that is told, and it goes.
func TestDraining(t *testing.T) {
	s := newScene(t, Config{})
	s.set("here1")
	vip := netip.MustParseAddrPort("10.96.0.1:80")
	c, err := s.hosts["outside"].Dial("tcp", vip, hosttest.Soon)
	must(t, err)
	defer c.Close()
	hear := func() {
		t.Helper()
		buf := make([]byte, 100)
		_ = c.SetDeadline(time.Now().Add(need.Slow(hosttest.Soon)))
		if n, err := c.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), "here1") {
			t.Fatalf("heard %q, %v", buf[:n], err)
		}
		_, err := c.Write([]byte("x"))
		must(t, err)
	}
	hear()
	s.set("there1")
	hear()
	for range 4 {
		if who := s.hosts["outside"].Call("tcp", vip, hosttest.Soon); !strings.HasPrefix(who, "there1 ") {
			t.Errorf("a new connection is answered by %q", who)
		}
	}
	s.m.DeleteService(net.Key{Namespace: "default", Name: "s1"})
	d := s.m.Take()
	must(t, s.b.Apply(hosttest.Ctx(t), s.m.Table(), &d))
	hear()
	s.sync()
	hear()
	if who := s.hosts["outside"].Call("tcp", vip, hosttest.Soon); who != hosttest.Refused {
		t.Errorf("the service is gone, and a new connection to it is %q", who)
	}
	if s.b.changedNow(t) {
		t.Error("what still has a connection is told to be done")
	}
	c.Close()
	// The kernel counts the connection as ended when both sides have said so.
	ended := func() bool { return strings.Count(command(t, "ipvsadm", "-Ln"), "->") > 1 && s.b.changedNow(t) }
	for end := time.Now().Add(need.Slow(20 * time.Second)); !ended() && time.Now().Before(end); {
	}
	s.sync()
	if left := command(t, "ipvsadm", "-Ln"); strings.Contains(left, "10.96.0.1") {
		t.Errorf("left is\n%s", left)
	}
	if left := command(t, "ip", "-brief", "addr", "show", "dev", defaultDevice); strings.Contains(left, "10.96.0.1") {
		t.Errorf("left is %s", left)
	}
}

// TestTakeOver: what kube-proxy left in this mode goes, others' does not.
func TestTakeOver(t *testing.T) {
	s := newScene(t, Config{Exclude: []netip.Prefix{netip.MustParsePrefix("10.96.3.0/24")}})
	command(t, "ip", "link", "add", defaultDevice, "type", "dummy")
	for _, a := range []string{"10.96.0.1/32", "10.96.2.2/32", "10.96.3.3/32"} {
		command(t, "ip", "addr", "add", a, "dev", defaultDevice)
	}
	for _, vs := range []string{"10.96.0.1:80", "10.96.2.2:80", "10.96.3.3:80", "192.168.0.1:30001", "192.168.0.1:30999", "192.168.0.1:8888"} {
		command(t, "ipvsadm", "-A", "-t", vs, "-s", "rr")
	}
	command(t, "ipset", "create", "KUBE-NODE-PORT-TCP", "bitmap:port", "range", "0-65535")
	command(t, "ipset", "add", "KUBE-NODE-PORT-TCP", "30999")
	command(t, "ipset", "create", "KUBE-6-CLUSTER-IP", "hash:ip,port", "family", "inet6")
	s.set("here1")
	gone, err := s.b.TakeOver(hosttest.Ctx(t))
	if err != nil || len(gone) != 1 {
		t.Errorf("removed was %q, %v", gone, err)
	}
	left := command(t, "ipvsadm", "-Ln")
	for vs, want := range map[string]bool{"10.96.0.1:80": true, "10.96.2.2:80": false, "10.96.3.3:80": true, "192.168.0.1:30001": true, "192.168.0.1:30999": false, "192.168.0.1:8888": true} {
		if got := strings.Contains(left, vs+" "); got != want {
			t.Errorf("%s is there: %t", vs, got)
		}
	}
	if sets := command(t, "ipset", "list", "-n"); strings.Contains(sets, "KUBE") {
		t.Errorf("sets are left: %s", sets)
	}
	if s.b.changedNow(t) {
		t.Error("our own changes are news")
	}
	must(t, s.b.Remove(hosttest.Ctx(t)))
	if left := command(t, "ip", "-brief", "addr", "show", "dev", defaultDevice); !strings.Contains(left, "10.96.3.3") || strings.Contains(left, "10.96.0.1") {
		t.Errorf("the device has %s when all is removed but what is excluded", left)
	}
	command(t, "ip", "link", "del", defaultDevice)
	command(t, "ipvsadm", "-C")
}

// TestRemoveLeavesKubeProxy: where nothing is ours, or kube-proxy works now, its
// servers and the device stay; who takes over in another mode removes them.
func TestRemoveLeavesKubeProxy(t *testing.T) {
	s := newScene(t, Config{})
	theirs := func() bool {
		return strings.Contains(command(t, "ipvsadm", "-Ln"), "10.96.2.2:80") && strings.Contains(command(t, "ip", "-brief", "addr"), "10.96.2.2")
	}
	begin := func() {
		command(t, "ip", "addr", "replace", "10.96.2.2/32", "dev", defaultDevice)
		command(t, "ipvsadm", "-A", "-t", "10.96.2.2:80", "-s", "rr")
	}
	command(t, "ip", "link", "add", defaultDevice, "type", "dummy")
	begin()
	must(t, s.b.Remove(hosttest.Ctx(t)))
	if !theirs() {
		t.Error("nothing was ours, and something is gone")
	}
	s.set("here1")
	begin()
	command(t, "ipset", "create", kubeProxySign, "hash:ip,port")
	must(t, s.b.Remove(hosttest.Ctx(t)))
	if !theirs() {
		t.Error("kube-proxy works, and something is gone")
	}
	if sets := command(t, "ipset", "list", "-n"); strings.Contains(sets, setPrefix) {
		t.Errorf("left are %s", sets)
	}
	if gone, err := RemoveKubeProxy(hosttest.Ctx(t), nil); err != nil || len(gone) != 1 || theirs() {
		t.Errorf("removed was %q, %v", gone, err)
	}
	command(t, "ipvsadm", "-C")
}
