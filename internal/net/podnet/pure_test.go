package podnet

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, x := range s {
		out = append(out, netip.MustParsePrefix(x))
	}
	return out
}

func TestPoolRefuses(t *testing.T) {
	for _, c := range [][]netip.Prefix{
		prefixes("10.0.0.0/31"), prefixes("10.0.0.0/32"), prefixes("fd00::/127"),
		prefixes("10.0.0.0/24", "10.0.0.128/25"), {netip.Prefix{}}, prefixes("::ffff:10.0.0.0/120"),
	} {
		if _, err := newPool(c); err == nil {
			t.Errorf("%v was taken", c)
		}
	}
}

func TestPool(t *testing.T) {
	for _, c := range []struct {
		cidrs   []netip.Prefix
		first   string
		room    int
		gateway string
	}{
		{prefixes("10.0.0.0/30"), "[10.0.0.2]", 1, "10.0.0.1"},
		{prefixes("10.0.0.77/29"), "[10.0.0.74]", 5, "10.0.0.73"},
		{prefixes("255.255.255.248/29"), "[255.255.255.250]", 5, "255.255.255.249"},
		{prefixes("fd00::/126"), "[fd00::2]", 2, "fd00::1"},
		{prefixes("fd00::/126", "10.0.0.0/24"), "[10.0.0.2 fd00::2]", 2, "fd00::1"},
		{prefixes("10.0.0.0/30", "10.1.0.0/29"), "[10.0.0.2]", 6, "10.0.0.1"},
	} {
		p, err := newPool(c.cidrs)
		must(t, err)
		if p.spans[0].gateway.String() != c.gateway {
			t.Errorf("%v: gateway %s", c.cidrs, p.spans[0].gateway)
		}
		var got [][]netip.Addr
		for {
			a, err := p.take(fmt.Sprint(len(got)))
			if err != nil {
				break
			}
			got = append(got, a)
		}
		if len(got) != c.room || fmt.Sprint(got[0]) != c.first {
			t.Errorf("%v: %v", c.cidrs, got)
		}
		// A failed take keeps nothing: all that is given back can be taken.
		for _, a := range got {
			p.put(a)
		}
		if len(p.used) != 0 {
			t.Errorf("%v: still used %v", c.cidrs, p.used)
		}
	}
}

// TestPoolReusesLast: an address just freed is the last to be given again, over
// a restart too.
func TestPoolReusesLast(t *testing.T) {
	p, err := newPool(prefixes("10.0.0.0/29"))
	must(t, err)
	var order []string
	for range 12 {
		a, err := p.take("x")
		must(t, err)
		order = append(order, a[0].String()[len("10.0.0."):])
		p.put(a)
		q, _ := newPool(prefixes("10.0.0.0/29"))
		q.resume(a[0])
		p = q
	}
	if s := strings.Join(order, ""); s != "234562345623" {
		t.Errorf("order %s", s)
	}
}

func TestPoolOfAnAlmostFullSixteen(t *testing.T) {
	p, err := newPool(prefixes("10.0.0.0/16"))
	must(t, err)
	for i := range 65533 {
		if _, err := p.take("x"); err != nil {
			t.Fatalf("take %d: %v", i, err)
		}
	}
	free := netip.MustParseAddr("10.0.77.7")
	p.put([]netip.Addr{free})
	got, err := p.take("y")
	if err != nil || got[0] != free {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestPortClashes(t *testing.T) {
	a := func(s string) netip.Addr {
		if s == "" {
			return netip.Addr{}
		}
		return netip.MustParseAddr(s)
	}
	for _, c := range []struct {
		x, y string
		want bool
	}{
		{"", "", true}, {"", "10.0.0.1", true}, {"", "::", true}, {"0.0.0.0", "10.0.0.1", true}, {"10.0.0.1", "10.0.0.1", true},
		{"10.0.0.1", "10.0.0.2", false}, {"0.0.0.0", "::", false}, {"0.0.0.0", "fd00::1", false}, {"::", "fd00::1", true},
	} {
		x := port{Proto: unix.IPPROTO_TCP, HostPort: 80, Container: 1, HostIP: a(c.x)}
		y := port{Proto: unix.IPPROTO_TCP, HostPort: 80, Container: 2, HostIP: a(c.y)}
		if x.clashes(y) != c.want || y.clashes(x) != c.want {
			t.Errorf("%q and %q: want %v", c.x, c.y, c.want)
		}
		y.Proto = unix.IPPROTO_UDP
		if x.clashes(y) {
			t.Errorf("%q tcp and %q udp clash", c.x, c.y)
		}
	}
}

func TestLinkNames(t *testing.T) {
	seen := map[string]bool{}
	for i := range 10000 {
		n := linkName(fmt.Sprint("sandbox", i))
		if len(n) != 15 || seen[n] || strings.ToLower(n) != n {
			t.Fatalf("name %q", n)
		}
		seen[n] = true
	}
	if got := linkName("x"); got != linkName("x") {
		t.Error("not the same twice")
	}
}

// TestKeyedLock: the same key one after another, others at once, and a waiter
// that gives up.
func TestKeyedLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k keyedLock
		bg := context.Background()
		unlock, err := k.lock(bg, "a")
		must(t, err)
		other, err := k.lock(bg, "b")
		must(t, err)
		other()
		ctx, cancel := context.WithTimeout(bg, time.Hour)
		defer cancel()
		since := time.Now()
		if _, err := k.lock(ctx, "a"); err == nil || time.Since(since) != time.Hour {
			t.Errorf("second lock: %v after %v", err, time.Since(since))
		}
		got := make(chan func(), 1)
		go func() { u, _ := k.lock(bg, "a"); got <- u }()
		synctest.Wait()
		unlock()
		(<-got)()
		if len(k.held) != 0 {
			t.Errorf("left: %v", k.held)
		}
	})
}

func TestAnEndlessPluginIsLeft(t *testing.T) {
	// The plugin's call never ends, whatever is killed: runPlugins gives up.
	synctest.Test(t, func(t *testing.T) {
		n, err := New(Config{StateDir: "/x", RunDir: "/y"})
		must(t, err)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		end := make(chan struct{})
		since := time.Now()
		err = n.runPlugins(ctx, "sb-that-is-nowhere", func(context.Context) error { <-end; return nil })
		if err == nil || time.Since(since) != time.Minute+killGrace {
			t.Errorf("%v after %v", err, time.Since(since))
		}
		close(end)
	})
}

func FuzzAlias(f *testing.F) {
	f.Add("nodeagent:sb-1 10.0.0.1,fd00::1")
	f.Add("nodeagent: ")
	f.Fuzz(func(t *testing.T, s string) {
		sandbox, addrs, ok := parseAlias(s)
		if !ok {
			return
		}
		again, addrs2, ok := parseAlias(alias(sandbox, addrs))
		if !ok || again != sandbox || !slices.Equal(addrs, addrs2) {
			t.Errorf("%q became %q %v", s, again, addrs2)
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add("sb", []byte(`{"sandbox":"sb","link":"`+linkName("sb")+`","addrs":["10.0.0.1"],"ports":[{"proto":6,"hostPort":80,"containerPort":80}]}`))
	f.Add("sb", []byte(`{"sandbox":"sb","cni":{"conf":"{}"},"addrs":[""]}`))
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		r, err := decodeRecord(name, b)
		if err != nil {
			return
		}
		for _, x := range bindings(r.Ports, r.Addrs) {
			if _, err := decodeBinding(mapOf(x), mapKey(x), mapValue(x)); err != nil {
				t.Errorf("%+v: %v", x, err)
			}
		}
	})
}

func FuzzBinding(f *testing.F) {
	for _, host := range []string{"", "192.0.2.1"} {
		b := binding{port: port{Proto: 6, HostPort: 80, Container: 8080}, Pod: netip.MustParseAddr("10.0.0.1")}
		if host != "" {
			b.HostIP = netip.MustParseAddr(host)
		}
		f.Add(mapOf(b), mapKey(b), mapValue(b))
	}
	f.Fuzz(func(t *testing.T, set, key, value string) {
		b, err := decodeBinding(set, key, value)
		if err != nil || !strings.HasPrefix(set, "hostports") {
			return
		}
		again, err := decodeBinding(mapOf(b), mapKey(b), mapValue(b))
		if err != nil || again != b {
			t.Errorf("%+v became %+v, %v", b, again, err)
		}
	})
}

func FuzzConf(f *testing.F) {
	f.Add([]byte(fakeConf), true)
	f.Add([]byte(`{"name":"x","type":"../x"}`), false)
	f.Fuzz(func(t *testing.T, b []byte, list bool) {
		isList, err := checkConf(b, list)
		if err != nil {
			return
		}
		n := &Network{cfg: Config{CNIBinDir: "/none"}}
		// Whatever passes must not make the library run a path.
		p, err := n.plugins(&cniCall{Conf: string(b), List: isList})
		if err != nil {
			return
		}
		for _, net := range p.GetConfig().Networks {
			for _, pl := range net.Config.Plugins {
				if strings.Contains(pl.Network.Type, "/") {
					t.Errorf("plugin type %q", pl.Network.Type)
				}
			}
		}
	})
}
