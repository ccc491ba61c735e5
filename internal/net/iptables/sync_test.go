package iptables

import (
	"bytes"
	"context"
	"fmt"
	"math/rand"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

var flavours = []Flavour{NFT, Legacy}

// eachFlavour runs a test with both.
func eachFlavour(t *testing.T, f func(*testing.T, Flavour)) {
	need.Have(t, need.Root)
	for _, flavour := range flavours {
		t.Run(string(flavour), func(t *testing.T) { f(t, flavour) })
	}
}

func backend(t testing.TB, cfg Config) *Backend {
	t.Helper()
	if cfg.Pods == nil && cfg.PodInterfaces == nil {
		cfg.Pods = pods
	}
	b, err := New(cfg)
	must(t, err)
	for _, f := range b.feeds {
		f.last = time.Now() // so that the first small change begins a program that stays
		f.hello = time.Minute
	}
	t.Cleanup(func() {
		defer b.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := b.Remove(ctx); err != nil {
			t.Error(err)
		}
	})
	return b
}

func kind(flavour Flavour) hosttest.Kind {
	return hosttest.Kind{
		New:  func(t testing.TB) hosttest.Programmer { return backend(t, Config{Flavour: flavour}) },
		List: func(t testing.TB) string { return dump(t, flavour) },
		Flush: func(t testing.TB) {
			for _, table := range tables {
				for _, name := range []string{"iptables", "ip6tables"} {
					command(t, name, flavour, "", "-t", table, "-F")
					command(t, name, flavour, "", "-t", table, "-X")
				}
			}
		},
	}
}

// command runs one of the programs; end is "", "-save" or "-restore".
func command(t testing.TB, name string, flavour Flavour, end string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var said bytes.Buffer // it warns of the other flavour's tables in the middle of a line
	c := exec.CommandContext(ctx, name+"-"+string(flavour)+end, args...)
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s-%s%s %s: %v: %s%s", name, flavour, end, strings.Join(args, " "), err, out, &said)
	}
	return string(out)
}

// dump is all tables of both families, without what changes by itself.
func dump(t testing.TB, flavour Flavour) string {
	t.Helper()
	var out []string
	for _, name := range []string{"iptables", "ip6tables"} {
		for _, table := range tables {
			for line := range strings.Lines(command(t, name, flavour, "-save", "-t", table)) {
				if head, _, ok := strings.Cut(line, " ["); ok && line[0] == ':' {
					line = head + "\n"
				}
				if line[0] != '#' {
					out = append(out, line)
				}
			}
		}
	}
	return strings.Join(out, "")
}

func TestMatrix(t *testing.T) {
	eachFlavour(t, func(t *testing.T, f Flavour) { hosttest.Matrix(t, kind(f)) })
}

// TestMatrixByInterface: a pod is known by where its packets come in.
func TestMatrixByInterface(t *testing.T) {
	eachFlavour(t, func(t *testing.T, f Flavour) {
		k := kind(f)
		k.New = func(t testing.TB) hosttest.Programmer {
			return backend(t, Config{Flavour: f, PodInterfaces: []string{"v-here+"}})
		}
		hosttest.Matrix(t, k)
	})
}

// TestInvalid: what belongs to no connection does not pass, unless it may.
func TestInvalid(t *testing.T) {
	eachFlavour(t, func(t *testing.T, f Flavour) {
		hosttest.Invalid(t, func(t testing.TB, keep bool) hosttest.Programmer {
			return backend(t, Config{Flavour: f, KeepInvalid: keep})
		})
	})
}

// TestHeld: who explains is told what the kernel has.
func TestHeld(t *testing.T) {
	eachFlavour(t, func(t *testing.T, f Flavour) { hosttest.Held(t, "iptables", kind(f)) })
}

func TestBalance(t *testing.T) {
	eachFlavour(t, func(t *testing.T, f Flavour) { hosttest.Balance(t, kind(f)) })
}

func TestAffinity(t *testing.T) {
	eachFlavour(t, func(t *testing.T, f Flavour) { hosttest.Affine(t, kind(f)) })
}

func TestConnectionsSurvive(t *testing.T) {
	eachFlavour(t, func(t *testing.T, f Flavour) {
		// The kernel tracks, and translates, connections for as long as any rule asks
		// for it: in the legacy flavour none is left when all are flushed.
		command(t, "iptables", f, "", "-t", "mangle", "-A", "PREROUTING", "-m", "conntrack", "--ctstate", "NEW")
		t.Cleanup(func() { command(t, "iptables", f, "", "-t", "mangle", "-F") })
		hosttest.Survive(t, kind(f))
	})
}

// TestPartialEqualsFull: whatever the history of changes, what is in the kernel
// is what a new start writes into an empty one, and such a one finds nothing to
// do.
func TestPartialEqualsFull(t *testing.T) {
	eachFlavour(t, func(t *testing.T, flavour Flavour) {
		for seed := range int64(2) {
			dice := rand.New(rand.NewSource(seed))
			m := net.NewModel(thisNode)
			b := backend(t, Config{Flavour: flavour})
			for i := range 30 {
				for range 1 + dice.Intn(4) {
					change(dice, m)
				}
				for range 10 {
					name := fmt.Sprintf("s%d", dice.Intn(100))
					m.SetService(big(dice, name))
					m.SetSlice(bigSlice(dice, name))
				}
				d := m.Take()
				must(t, b.Apply(hosttest.Ctx(t), m.Table(), &d))
				if !b.known {
					t.Fatal("the backend does not trust itself")
				}
				if i%10 != 9 {
					continue
				}
				fresh, err := New(b.cfg)
				must(t, err)
				r, err := fresh.Sync(hosttest.Ctx(t), m.Table())
				must(t, err)
				if r != (net.Report{}) {
					t.Fatalf("seed %d, step %d: a full sync had to do %+v", seed, i, r)
				}
				counted(t, b, flavour)
				counted(t, fresh, flavour)
			}
			left := dump(t, flavour)
			must(t, b.Remove(hosttest.Ctx(t)))
			_, err := b.Sync(hosttest.Ctx(t), m.Table())
			must(t, err)
			if full := dump(t, flavour); sorted(full) != sorted(left) {
				t.Errorf("seed %d: changes left\n%s\na new start writes\n%s", seed, left, full)
			}
		}
	})
}

// counted holds how many rules the backend says there are against those that there are.
func counted(t *testing.T, b *Backend, flavour Flavour) {
	t.Helper()
	for _, c := range b.Counts().Rules {
		name, n := map[net.Family]string{4: "iptables", 6: "ip6tables"}[c.Family], 0
		text, err := exec.Command(name+"-"+string(flavour)+"-save", "-t", c.Table).Output() // without warnings, which may come in the midst of a line
		must(t, err)
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "-A ") && strings.Contains(line, "NODEAGENT-") {
				n++
			}
		}
		if n != c.Total {
			t.Errorf("in %s of %s there are %d rules of ours, and %d were counted", c.Table, name, n, c.Total)
		}
	}
}

// sorted compares whatever the order of chains: rules name theirs.
func sorted(s string) string {
	lines := strings.Split(s, "\n")
	slices.SortStableFunc(lines, func(a, b string) int {
		x, _, _ := strings.Cut(strings.TrimPrefix(a, "-A "), " ")
		y, _, _ := strings.Cut(strings.TrimPrefix(b, "-A "), " ")
		if x == y && anyOrder(x) {
			return strings.Compare(a, b)
		}
		return strings.Compare(x, y)
	})
	return strings.Join(lines, "\n")
}

// foreignRules are in places where others have theirs.
var foreignRules = []string{
	"-t nat -N FOREIGN", "-t nat -A FOREIGN -d 1.2.3.4/32 -j RETURN", "-t nat -I PREROUTING -j FOREIGN", "-t nat -A POSTROUTING -s 1.2.3.4/32 -j MASQUERADE",
	"-t nat -N NODEAGENT-HOSTPORTS", "-t nat -A NODEAGENT-HOSTPORTS -j RETURN", "-t nat -A OUTPUT -j NODEAGENT-HOSTPORTS",
	"-N FOREIGN", "-A FOREIGN -j RETURN", "-I FORWARD -j FOREIGN", "-A INPUT -s 1.2.3.4/32 -j DROP",
}

func plant(t *testing.T, flavour Flavour) {
	for _, r := range foreignRules {
		command(t, "iptables", flavour, "", strings.Fields(r)...)
	}
}

// TestHealing: whatever somebody else does to our rules is seen and mended, and
// what is not ours stays.
func TestHealing(t *testing.T) {
	eachFlavour(t, func(t *testing.T, flavour Flavour) {
		kind(flavour).Flush(t)
		plant(t, flavour)
		t.Cleanup(func() { kind(flavour).Flush(t) })
		bare := dump(t, flavour)
		services, endpoints := Many(50, 3)
		services = append(services, hosttest.ServiceOf(1, LocalOutside, Affinity(60), Ranges("192.168.0.0/24")))
		m := Filled(thisNode, services, endpoints)
		b := backend(t, Config{Flavour: flavour})
		_, err := b.Sync(hosttest.Ctx(t), m.Table())
		must(t, err)
		whole := dump(t, flavour)
		wakes := hosttest.Watch(t, b)
		woken(t, wakes, "the start")
		id := slotOf(b.layouts[0], m.Table().Sorted()[3], 1)
		for _, what := range []string{
			"-t nat -D PREROUTING -m comment --comment $ -j NODEAGENT-SERVICES",
			"-t nat -F NODEAGENT-SERVICES",
			"-t nat -F " + id,
			"-t nat -D " + id + " 2",
			"-t nat -R " + id + " 4 -p tcp -j DNAT --to-destination 10.128.0.99:8080",
			"-t nat -I " + id + " -j RETURN",
			"-t nat -N NODEAGENT-SVC-ABCDEFGHIJKLMN",
			"-t nat -I OUTPUT -j NODEAGENT-SERVICES",
			"-F NODEAGENT-CLOSED",
			"-I NODEAGENT-UNKNOWN -j ACCEPT",
		} {
			args := strings.Fields(what)
			if i := slices.Index(args, "$"); i >= 0 {
				args[i] = "nodeagent: service addresses"
			}
			command(t, "iptables", flavour, "", args...)
			woken(t, wakes, what)
			mended(t, b, m.Table(), what)
			if now := dump(t, flavour); sorted(now) != sorted(whole) {
				t.Errorf("%s: mended the rules are others:\n%s", what, now)
			}
		}
		// Our own changes wake nobody, nor do those of others that are not about us.
		drain(wakes)
		m.DeleteService(net.Key{Namespace: "default", Name: "s1"})
		m.DeleteService(net.Key{Namespace: "default", Name: services[7].Name})
		d := m.Take()
		must(t, b.Apply(hosttest.Ctx(t), m.Table(), &d))
		command(t, "iptables", flavour, "", "-t", "nat", "-A", "FOREIGN", "-j", "RETURN")
		command(t, "iptables", flavour, "", "-t", "nat", "-D", "FOREIGN", "2")
		select {
		case <-wakes:
			t.Error("our own change, or one that is none of our business, woke us")
		case <-time.After(1500 * time.Millisecond):
		}
		must(t, b.Remove(hosttest.Ctx(t)))
		if now := dump(t, flavour); sorted(now) != sorted(bare) {
			t.Errorf("with ours removed there is\n%s\nwhere there was\n%s", now, bare)
		}
	})
}

func woken(t testing.TB, wakes chan struct{}, what string) {
	t.Helper()
	select {
	case <-wakes:
	case <-time.After(30 * time.Second):
		t.Fatalf("nothing is told of: %s", what)
	}
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

// mended syncs, and once more, which finds nothing.
func mended(t *testing.T, b *Backend, table *net.Table, what string) {
	t.Helper()
	r, err := b.Sync(hosttest.Ctx(t), table)
	must(t, err)
	if r == (net.Report{}) {
		t.Errorf("%s: nothing was mended", what)
	}
	nothingLeft(t, b, table, what)
}

// nothingLeft has everything looked at, though nobody was heard to have changed anything.
func nothingLeft(t *testing.T, b *Backend, table *net.Table, what string) {
	t.Helper()
	b.known = false
	if r, err := b.Sync(hosttest.Ctx(t), table); err != nil || r != (net.Report{}) {
		t.Errorf("%s: a second sync had to do %+v, %v", what, r, err)
	}
}

// TestSurprise: a change that meets other rules than expected ends in a sync; a
// chain of ours to which somebody else's rule leads is emptied, and stays.
func TestSurprise(t *testing.T) {
	eachFlavour(t, func(t *testing.T, flavour Flavour) {
		m := net.NewModel(thisNode)
		b := backend(t, Config{Flavour: flavour})
		t.Cleanup(func() { kind(flavour).Flush(t) })
		set := func(ip string) {
			t.Helper()
			m.SetService(hosttest.ServiceOf(1))
			m.SetSlice(Slice("s", "s1", To("t", corev1.ProtocolTCP, 8080), At(ip, "")))
			d := m.Take()
			must(t, b.Apply(hosttest.Ctx(t), m.Table(), &d))
			if list := dump(t, flavour); !strings.Contains(list, ip+":8080") {
				t.Errorf("the change to %s is not there:\n%s", ip, list)
			}
		}
		set("10.0.0.1")
		kind(flavour).Flush(t)
		m.DeleteService(net.Key{Namespace: "default", Name: "s1"})
		d := m.Take()
		must(t, b.Apply(hosttest.Ctx(t), m.Table(), &d)) // chains that are to go are gone
		set("10.0.0.2")
		id := b.layouts[0].chainOf(toCluster, m.Table().Sorted()[0])
		command(t, "iptables", flavour, "", "-t", "nat", "-N", "FOREIGN")
		command(t, "iptables", flavour, "", "-t", "nat", "-A", "FOREIGN", "-j", id)
		m.DeleteService(net.Key{Namespace: "default", Name: "s1"})
		d = m.Take()
		must(t, b.Apply(hosttest.Ctx(t), m.Table(), &d))
		if r, err := b.Sync(hosttest.Ctx(t), m.Table()); err != nil || r != (net.Report{}) {
			t.Errorf("a chain that cannot go: %+v, %v", r, err)
		}
		if list := dump(t, flavour); strings.Contains(list, "-A "+id) || !strings.Contains(list, "-A FOREIGN -j "+id) {
			t.Errorf("somebody else's rule is gone, or ours is not:\n%s", list)
		}
	})
}

// TestForwardDrops: where the node's own FORWARD chain drops, what is masqueraded
// gets through all the same.
func TestForwardDrops(t *testing.T) {
	eachFlavour(t, func(t *testing.T, flavour Flavour) {
		hosts := hosttest.Wire(t)
		hosts["there1"].Serve(t, 8080)
		command(t, "iptables", flavour, "", "-P", "FORWARD", "DROP")
		t.Cleanup(func() { command(t, "iptables", flavour, "", "-P", "FORWARD", "ACCEPT") })
		b := backend(t, Config{Flavour: flavour})
		_, err := b.Sync(hosttest.Ctx(t), net.Build([]*corev1.Service{hosttest.ServiceOf(1)}, hosttest.Ends("s1", hosts, "there1"), thisNode))
		must(t, err)
		for _, to := range []string{"192.168.0.1:30001", "10.96.0.1:80"} {
			if got := hosts["outside"].Call("tcp", netip.MustParseAddrPort(to), hosttest.Soon); got != "there1 10.0.4.1" {
				t.Errorf("%s: %s", to, got)
			}
		}
		if got := hosts["outside"].Call("tcp", netip.AddrPortFrom(hosts["there1"].IP4, 8080), hosttest.Never); got != hosttest.Dropped {
			t.Errorf("what is no service: %s", got)
		}
	})
}

// TestLocked: while somebody holds the lock of the legacy programs a change
// fails in time, and is made later.
func TestLocked(t *testing.T) {
	need.Have(t, need.Root)
	b := backend(t, Config{Flavour: Legacy})
	table := net.Build([]*corev1.Service{hosttest.ServiceOf(1)}, nil, thisNode)
	f, err := os.OpenFile(os.Getenv("XTABLES_LOCKFILE"), os.O_CREATE|os.O_RDWR, 0o600)
	must(t, err)
	defer f.Close()
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	if _, err := b.Sync(hosttest.Ctx(t), table); !IsLocked(err) {
		t.Errorf("with the lock held: %v", err)
	}
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_UN))
	_, err = b.Sync(hosttest.Ctx(t), table)
	must(t, err)
}

// TestRefused: what the kernel does not take is told apart, with the line, and
// changes nothing.
func TestRefused(t *testing.T) {
	eachFlavour(t, func(t *testing.T, flavour Flavour) {
		b := backend(t, Config{Flavour: flavour})
		tools, err := b.choose(hosttest.Ctx(t))
		must(t, err)
		before := dump(t, flavour)
		c := chain{nat, "NODEAGENT-IP", []string{"-j RETURN", "-j NODEAGENT-SVC-NOWHERE"}}
		err = b.write(hosttest.Ctx(t), tools[0], []patch{{table: nat, write: []rewrite{{chain: c}}}})
		if !net.IsRefused(err) || !strings.Contains(err.Error(), "(line ") {
			t.Errorf("a rule that leads nowhere: %v", err)
		}
		if now := dump(t, flavour); strings.Contains(now, "NODEAGENT") {
			t.Errorf("there was\n%s\nand is\n%s", before, now)
		}
	})
}

// TestTakenBack: a change that the kernel refuses leaves what was, and the next one
// is written by itself. Where somebody else wrote meanwhile everything is compared.
func TestTakenBack(t *testing.T) {
	eachFlavour(t, func(t *testing.T, flavour Flavour) {
		services, endpoints := Many(40, 3)
		m := Filled(thisNode, services, endpoints)
		b := backend(t, Config{Flavour: flavour})
		woken(t, hosttest.Watch(t, b), "the start")
		_, err := b.Sync(hosttest.Ctx(t), m.Table())
		must(t, err)
		before := dump(t, flavour)

		// An IPv4 rule that leads to IPv6 is nothing to iptables: in the second of three changes.
		bad := m.Table().Clone()
		all := bad.Sorted()
		late := *all[1]
		late.Cluster = []netip.AddrPort{netip.MustParseAddrPort("[fd00::1]:80")}
		d := bad.Change([]net.Change{{Old: all[0]}, {Old: all[1], New: &late}, {Old: all[2]}})
		try := func(known bool) {
			t.Helper()
			if err := b.Apply(hosttest.Ctx(t), bad, &d); !net.IsRefused(err) || b.known != known {
				t.Fatalf("the kernel answers %v; what it holds is known: %v, want %v", err, b.known, known)
			}
		}
		try(true)
		if now := dump(t, flavour); sorted(now) != sorted(before) {
			t.Errorf("there was\n%s\nand is\n%s", before, now)
		}
		good := m.Table().Clone()
		one := good.Change([]net.Change{{Old: all[0]}})
		must(t, b.Apply(hosttest.Ctx(t), good, &one))
		nothingLeft(t, b, good, "a change after one that was taken back")

		_, err = b.Sync(hosttest.Ctx(t), m.Table())
		must(t, err)
		command(t, "iptables", flavour, "", "-t", "nat", "-F", slotOf(b.layouts[0], all[3], 0))
		if flavour == NFT {
			for b.undisturbed(t.Context(), b.tools) { // the kernel tells, in a moment
				must(t, t.Context().Err())
			}
		}
		try(false)
		must(t, b.Apply(hosttest.Ctx(t), m.Table(), &net.Diff{}))
		if now := dump(t, flavour); sorted(now) != sorted(before) {
			t.Errorf("what somebody else took away, and was to change: there was\n%s\nand is\n%s", before, now)
		}
	})
}

// TestGoneAlready: a change takes a rule away that somebody else took away before. Where he
// was not heard of yet, the program refuses; then what was is written, and the same change
// is made the next time.
func TestGoneAlready(t *testing.T) {
	eachFlavour(t, func(t *testing.T, flavour Flavour) {
		goes := func(m *net.Model, e *net.Entry) {
			m.DeleteService(net.Key{Namespace: e.Service.Namespace, Name: e.Service.Name})
		}
		turns := func(m *net.Model, e *net.Entry) { // in two rounds, of which the second is refused
			m.SetService(Service(e.Service.Name, []string{e.Addr.IP.String()}, Port("http", corev1.ProtocolTCP, int32(e.Addr.Port), 30123)))
		}
		many := func(m *net.Model, e *net.Entry) { // by runs of their own
			goes(m, e)
			_, endpoints := Many(4000, 3)
			for k := range 700 {
				s := endpoints[10+k*11%3900]
				s.Endpoints[0].Addresses[0] = fmt.Sprintf("10.250.%d.%d", k/250, k%250)
				m.SetSlice(s)
			}
		}
		t.Run("nobody watches", func(t *testing.T) { goneAlready(t, flavour, 40, false, goes, true) })
		t.Run("unheard", func(t *testing.T) { goneAlready(t, flavour, 40, true, goes, true) })
		t.Run("unheard, in two rounds", func(t *testing.T) { goneAlready(t, flavour, 40, true, turns, false) })
		t.Run("unheard, of many that go", func(t *testing.T) { goneAlready(t, flavour, 4000, true, many, true) })
	})
}

func goneAlready(t *testing.T, flavour Flavour, n int, unheard bool, change func(*net.Model, *net.Entry), known bool) {
	services, endpoints := Many(n, 3)
	m := Filled(thisNode, services, endpoints)
	b := backend(t, Config{Flavour: flavour})
	_, err := b.Sync(hosttest.Ctx(t), m.Table())
	must(t, err)
	e := m.Table().Sorted()[3]
	name, tree := slotOf(b.layouts[0], e, 2), b.layouts[0].slots[2]
	rule := tree.rules(&node{depth: tree.nodes[name].depth, items: []item{*tree.find(e.Addr)}})[0]
	command(t, "iptables", flavour, "", append([]string{"-t", "nat", "-D", name}, strings.Fields(rule)...)...)
	b.watched = unheard // by somebody who hears nothing
	change(m, e)
	d := m.Take()
	err = b.Apply(hosttest.Ctx(t), m.Table(), &d)
	if net.IsRefused(err) != unheard || b.known != (known || !unheard) {
		t.Fatalf("the first time: %v; what the kernel holds is known: %v", err, b.known)
	}
	must(t, b.Apply(hosttest.Ctx(t), m.Table(), &d))
	nothingLeft(t, b, m.Table(), "the change, made again")
}

// TestDetect: as hints say; else where more rules are.
func TestDetect(t *testing.T) {
	need.Have(t, need.Root)
	for _, f := range flavours {
		kind(f).Flush(t)
		t.Cleanup(func() { kind(f).Flush(t) })
	}
	is := func(want Flavour) {
		t.Helper()
		if got, err := Detect(hosttest.Ctx(t)); err != nil || got != want {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
	}
	command(t, "iptables", Legacy, "", "-A", "INPUT", "-j", "ACCEPT")
	is(Legacy)
	for range 2 {
		command(t, "ip6tables", NFT, "", "-A", "INPUT", "-j", "ACCEPT")
	}
	is(NFT)
	command(t, "iptables", Legacy, "", "-t", "mangle", "-N", "KUBE-KUBELET-CANARY")
	t.Cleanup(func() { command(t, "iptables", Legacy, "", "-t", "mangle", "-X") })
	is(Legacy)
}

// TestOtherFlavour: what an earlier run left in the other flavour goes.
func TestOtherFlavour(t *testing.T) {
	eachFlavour(t, func(t *testing.T, flavour Flavour) {
		table := net.Build([]*corev1.Service{hosttest.ServiceOf(1)}, nil, thisNode)
		other := flavours[1-slices.Index(flavours, flavour)]
		_, err := backend(t, Config{Flavour: other}).Sync(hosttest.Ctx(t), table)
		must(t, err)
		_, err = backend(t, Config{Flavour: flavour}).Sync(hosttest.Ctx(t), table)
		must(t, err)
		if list := dump(t, other); strings.Contains(list, "NODEAGENT") {
			t.Errorf("it is still there:\n%s", list)
		}
		if list := dump(t, flavour); !strings.Contains(list, "NODEAGENT-SERVICES") {
			t.Errorf("it is not there:\n%s", list)
		}
	})
}

// TestRemoveKubeProxy: its chains go, and what others made stays.
func TestRemoveKubeProxy(t *testing.T) {
	eachFlavour(t, func(t *testing.T, flavour Flavour) {
		kind(flavour).Flush(t)
		t.Cleanup(func() { kind(flavour).Flush(t) })
		plant(t, flavour)
		for _, r := range []string{
			"-t nat -N KUBE-MARK-DROP", "-N KUBE-FIREWALL", "-I INPUT -j KUBE-FIREWALL", // kubelet's
			"-t nat -N KUBE-MARK-MASQ", "-t nat -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
			"-t nat -A FOREIGN -j KUBE-MARK-MASQ", // somebody counts on it
		} {
			command(t, "iptables", flavour, "", strings.Fields(r)...)
		}
		before := dump(t, flavour)
		for _, r := range []string{
			"-t nat -N KUBE-SERVICES", "-t nat -N KUBE-NODEPORTS", "-t nat -N KUBE-POSTROUTING", "-t nat -N KUBE-SVC-AAAAAAAAAAAAAAAA", "-t nat -N KUBE-SEP-AAAAAAAAAAAAAAAA",
			"-t nat -I PREROUTING -m comment --comment kube -j KUBE-SERVICES", "-t nat -I OUTPUT -j KUBE-SERVICES", "-t nat -I POSTROUTING -j KUBE-POSTROUTING",
			"-t nat -A KUBE-SERVICES -d 10.96.0.1/32 -p tcp --dport 443 -j KUBE-SVC-AAAAAAAAAAAAAAAA", "-t nat -A KUBE-SERVICES -j KUBE-NODEPORTS",
			"-t nat -A KUBE-SVC-AAAAAAAAAAAAAAAA -j KUBE-SEP-AAAAAAAAAAAAAAAA", "-t nat -A KUBE-SEP-AAAAAAAAAAAAAAAA -j KUBE-MARK-MASQ",
			"-N KUBE-FORWARD", "-N KUBE-EXTERNAL-SERVICES", "-N KUBE-PROXY-FIREWALL", "-I FORWARD -j KUBE-FORWARD", "-I INPUT -j KUBE-EXTERNAL-SERVICES",
			"-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT",
		} {
			command(t, "iptables", flavour, "", strings.Fields(r)...)
		}
		gone, err := backend(t, Config{}).TakeOver(hosttest.Ctx(t))
		must(t, err)
		if want := []string{"5 chains of iptables-" + string(flavour) + " table nat", "3 chains of iptables-" + string(flavour) + " table filter"}; !slices.Equal(gone, want) {
			t.Errorf("removed are %q, want %q", gone, want)
		}
		if now := dump(t, flavour); sorted(now) != sorted(before) {
			t.Errorf("there is\n%s\nwhere there was\n%s", now, before)
		}
	})
}

// TestReadable: what a person sees of one service is what docs/services.md shows.
func TestReadable(t *testing.T) {
	eachFlavour(t, func(t *testing.T, flavour Flavour) {
		b := backend(t, Config{Flavour: flavour})
		s := Service("web", []string{"10.96.0.10"}, Port("http", corev1.ProtocolTCP, 80, 30080))
		api := Service("api", []string{"10.96.0.20"}, Port("http", corev1.ProtocolTCP, 80, 0))
		apiSlice := Slice("api-1", "api", To("http", corev1.ProtocolTCP, 8080), At("10.0.0.6", "here"), At("10.0.7.6", "there"))
		evil := Service("evil", []string{"10.96.0.11"}, Port("x", corev1.ProtocolTCP, 80, 0))
		evil.Name = "quote\" -j ACCEPT\n-A INPUT -j DROP\n\x1b[31m \\" + strings.Repeat("long", 60)
		evilSlice := Slice("evil-1", evil.Name, To("x", corev1.ProtocolTCP, 80), At("10.0.0.6", ""))
		sl := Slice("web-1", "web", To("http", corev1.ProtocolTCP, 8080), At("10.0.0.5", "here"), At("10.0.7.5", "there"))
		table := net.Build([]*corev1.Service{s, api, evil}, []*discoveryv1.EndpointSlice{sl, apiSlice, evilSlice}, thisNode)
		_, err := b.Sync(hosttest.Ctx(t), table)
		must(t, err)
		list := dump(t, flavour)
		for _, want := range []string{
			`-A NODEAGENT-EP0 -d 10.96.0.20/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.6:8080`,
			`-A NODEAGENT-EP1 -d 10.96.0.20/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.7.6:8080`,
			`-A NODEAGENT-NAME -d 10.96.0.20/32 -p tcp -m tcp --dport 80 -m comment --comment "default/api:http cluster IP" -j RETURN`,
			`-A NODEAGENT-PICK -m statistic --mode random --probability 0.50000000000 -j NODEAGENT-EP1`,
			`-A NODEAGENT-IP -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -m comment --comment "default/web:http cluster IP" -j NODEAGENT-SVC-`,
			`-A NODEAGENT-PORT -p tcp -m tcp --dport 30080 -m comment --comment "default/web:http nodePort" -j NODEAGENT-EXT-`,
			` -p tcp -m statistic --mode random --probability 0.50000000000 -j DNAT --to-destination 10.0.0.5:8080`,
			` -p tcp -j DNAT --to-destination 10.0.7.5:8080`,
			`-A NODEAGENT-HAIR -s 10.0.0.5/32 -d 10.0.0.5/32 -g NODEAGENT-SELF`,
			`-A NODEAGENT-UNKNOWN -d 10.96.0.10/32 -g NODEAGENT-REFUSE`,
		} {
			if !strings.Contains(list, want) {
				t.Errorf("nobody can read %s in\n%s", want, list)
			}
		}
		if strings.Contains(list, "\n-A INPUT -j DROP") || strings.ContainsRune(list, '\x1b') {
			t.Error("a name is not made safe")
		}
		if r, err := b.Sync(hosttest.Ctx(t), table); err != nil || r != (net.Report{}) {
			t.Errorf("a second sync had to do %+v, %v", r, err)
		}
		if os.Getenv("SHOW") != "" {
			fmt.Println(list)
		}
	})
}
