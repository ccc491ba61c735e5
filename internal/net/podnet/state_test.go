package podnet

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"nodeagent/internal/test/need"
)

func none(string) bool { return false }
func all(string) bool  { return true }

// TestRestartKeepsPods: a restart finds addresses and ports taken and touches
// no traffic.
func TestRestartKeepsPods(t *testing.T) {
	for name, harm := range map[string]func(*host){
		"plain":        func(*host) {},
		"records lost": func(h *host) { must(t, os.RemoveAll(h.cfg.RunDir)) },
		"records garbled": func(h *host) {
			files, _ := filepath.Glob(filepath.Join(h.cfg.RunDir, "podnet", "sb-*"))
			for _, f := range files {
				must(t, os.WriteFile(f, []byte(`{"sandbox":`), 0o600))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, netip.MustParsePrefix("10.88.7.0/29"), netip.MustParsePrefix("fd88::/64"))
			n := h.start()
			a := h.up(n, PortMapping{ContainerPort: 80, HostPort: 8080}, PortMapping{ContainerPort: 80, HostPort: 8081, HostIP: nodeAddr4.String()})
			serve(t, a.netns, "tcp", "a", 80)
			h.stop()
			harm(h)
			n = h.start()
			must(t, n.Prune(context.Background(), all))
			wantAnswer(t, h.outside, "tcp", nodeAddr4, 8080, "a", outsideAddr4)
			wantAnswer(t, h.outside, "tcp", nodeAddr4, 8081, "a", outsideAddr4)
			wantAnswer(t, h.outside, "tcp", nodeAddr6, 8080, "a", outsideAddr6)
			b := h.newPod(PortMapping{ContainerPort: 80, HostPort: 8080})
			if _, err := n.Setup(context.Background(), b.req); err == nil {
				t.Error("the port was given twice")
			}
			var others []*pod
			for range 4 { // the /29 has five
				p := h.up(n)
				others = append(others, p)
				if p.addrs[0] == a.addrs[0] || p.addrs[1] == a.addrs[1] {
					t.Errorf("%v was given twice", p.addrs)
				}
			}
			res, err := n.Setup(context.Background(), a.req)
			must(t, err)
			if res.Addrs[0] != a.addrs[0] {
				t.Errorf("setup after a restart gave %v, the first %v", res.Addrs, a.addrs)
			}
			must(t, n.Check(context.Background(), a.req))
			wantAnswer(t, h.outside, "tcp", nodeAddr4, 8080, "a", outsideAddr4)
			h.down(n, append(others, a)...)
		})
	}
}

// TestRebootVoidsRecords: another boot id, the interfaces gone.
func TestRebootVoidsRecords(t *testing.T) {
	h := newHost(t, dual...)
	n := h.start()
	a := h.up(n)
	h.stop()
	must(t, os.WriteFile(filepath.Join(h.cfg.RunDir, "podnet", bootFile), []byte("another"), 0o600))
	must(t, netlink.LinkDel(mustLink(t, n.record(a.req.SandboxID).Link)))
	n = h.start()
	if len(n.recs) != 0 || len(n.pool.used) != 0 {
		t.Errorf("after a reboot there are records %v", n.recs)
	}
}

func mustLink(t testing.TB, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	must(t, err)
	return l
}

func TestPrune(t *testing.T) {
	h := newHost(t, dual...)
	n := h.start()
	keep := h.up(n, PortMapping{ContainerPort: 80, HostPort: 8080})
	gone := h.up(n, PortMapping{ContainerPort: 80, HostPort: 8081})
	lost := h.up(n)
	lost.delete() // its namespace went, and with it its interfaces
	n = h.start()
	must(t, n.Prune(context.Background(), func(id string) bool { return id == keep.req.SandboxID }))
	if len(n.recs) != 1 || len(n.pool.used) != 2 {
		t.Errorf("after prune: records %v, addresses %v", n.recs, n.pool.used)
	}
	must(t, n.Check(context.Background(), keep.req))
	if err := n.Check(context.Background(), gone.req); !errors.Is(err, ErrLost) {
		t.Errorf("check of a pruned sandbox: %v", err)
	}
	h.down(n, keep, gone, lost)
}

func TestLostNetwork(t *testing.T) {
	h := newHost(t, dual...)
	n := h.start()
	ctx := context.Background()
	a, b, c := h.up(n), h.up(n), h.up(n)
	must(t, netlink.LinkDel(mustLink(t, n.record(a.req.SandboxID).Link)))
	h.toldLost(a)
	b.delete()
	c.do(func() error {
		return netlink.AddrDel(mustLink(t, "eth0"), kernelAddr(netip.PrefixFrom(c.addrs[0], 24)))
	})
	for name, p := range map[string]*pod{"interface": a, "namespace": b, "address": c} {
		if err := n.Check(ctx, p.req); !errors.Is(err, ErrLost) {
			t.Errorf("%s gone, check says: %v", name, err)
		}
	}
	// The sandbox that is made anew under its name gets everything again.
	res, err := n.Setup(ctx, c.req)
	must(t, err)
	c.addrs = res.Addrs
	must(t, n.Check(ctx, c.req))
	h.down(n, a, b, c)
}

// TestLostMeanwhile: an interface that goes while no daemon runs, or none that hears it,
// is told of by the next look, and by each until its sandbox goes.
func TestLostMeanwhile(t *testing.T) {
	h := newHost(t, dual...)
	n := h.start()
	a, b := h.up(n), h.up(n)
	h.stop()
	must(t, netlink.LinkDel(mustLink(t, n.record(a.req.SandboxID).Link)))
	n = h.start()
	h.toldLost(a)
	h.quiet() // each watch has a look when it begins
	must(t, n.Prune(t.Context(), func(string) bool { return true }))
	h.toldLost(a)
	h.down(n, a)
	n.kick()
	must(t, n.Check(t.Context(), b.req))
	h.down(n, b)
	for len(h.lost) > 0 {
		if id := <-h.lost; id != a.req.SandboxID {
			t.Errorf("told of %s, which nobody took away", id)
		}
	}
}

// quiet waits until nothing more is told for ten times as long as Run keeps calm.
func (h *host) quiet() {
	for {
		select {
		case <-h.lost:
		case <-time.After(need.Slow(10 * calm)):
			return
		}
	}
}

// toldLost waits until somebody is told that the pod's network is gone.
func (h *host) toldLost(p *pod) {
	h.t.Helper()
	select {
	case id := <-h.lost:
		if id != p.req.SandboxID {
			h.t.Errorf("told of %s, want %s", id, p.req.SandboxID)
		}
	case <-time.After(need.Slow(5 * time.Second)):
		h.t.Error("nobody was told within 5 s that an interface went away")
	}
}

// TestBridgeComesBack: somebody deletes the bridge; pods are on the new one.
func TestBridgeComesBack(t *testing.T) {
	h := newHost(t, dual...)
	n := h.start()
	a, b := h.up(n), h.up(n)
	defer h.down(n, a, b)
	serve(t, b.netns, "tcp", "b", 80)
	must(t, netlink.LinkDel(mustLink(t, defaultBridge)))
	eventually(t, "a bridge again", func() bool {
		got, err := call(t, nil, "tcp", b.addrs[0], 80)
		return err == nil && strings.HasPrefix(got, "b ")
	})
	wantAnswer(t, a.netns, "tcp", b.addrs[1], 80, "b", a.addrs[1])
}

// TestNothingLeaksInManyCycles: 300 pods through the 61 addresses of a /26.
func TestNothingLeaksInManyCycles(t *testing.T) {
	cycles := 300
	if testing.Short() {
		cycles = 70
	}
	h := newHost(t, netip.MustParsePrefix("10.88.9.0/26"), netip.MustParsePrefix("fd88::/64"))
	n := h.start()
	seen := map[netip.Addr]int{}
	var live []*pod
	for i := range cycles {
		p := h.up(n, PortMapping{ContainerPort: 80, HostPort: int32(2000 + i)})
		if last, ok := seen[p.addrs[0]]; ok && i-last < 30 {
			t.Fatalf("cycle %d: address %s again after %d", i, p.addrs[0], i-last)
		}
		seen[p.addrs[0]] = i
		if live = append(live, p); len(live) == 10 {
			h.down(n, live...)
			live = nil
		}
		if i%97 == 96 {
			n = h.start()
		}
	}
	h.down(n, live...)
	if len(n.pool.used) != 0 {
		t.Errorf("addresses still taken: %v", n.pool.used)
	}
}

func TestManyAtOnce(t *testing.T) {
	h := newHost(t, dual...)
	n := h.start()
	ctx := context.Background()
	var wg sync.WaitGroup
	pods := make([]*pod, 100)
	for i := range pods {
		pods[i] = h.newPod(PortMapping{ContainerPort: 80, HostPort: int32(3000 + i)})
	}
	since := time.Now()
	for _, p := range pods {
		wg.Go(func() {
			res, err := n.Setup(ctx, p.req)
			if err != nil {
				t.Error(err)
			}
			p.addrs = res.Addrs
		})
	}
	wg.Wait()
	t.Logf("100 set up in %v", time.Since(since))
	seen := map[netip.Addr]bool{}
	for _, p := range pods {
		for _, a := range p.addrs {
			if seen[a] {
				t.Errorf("%s was given twice", a)
			}
			seen[a] = true
		}
	}
	if len(seen) != 200 {
		t.Errorf("%d addresses for 100 pods", len(seen))
	}
	since = time.Now()
	for _, p := range pods {
		wg.Go(func() {
			if err := n.Teardown(ctx, p.req); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	t.Logf("100 torn down in %v", time.Since(since))
}

func TestNotReady(t *testing.T) {
	h := newHost(t) // no ranges, no configuration
	n := h.start()
	if err := n.Ready(); err == nil || !strings.Contains(err.Error(), "cni plugin not initialized") || !strings.Contains(err.Error(), "no pod CIDR") {
		t.Errorf("ready: %v", err)
	}
	if _, err := n.Setup(context.Background(), h.newPod().req); err == nil {
		t.Error("setup succeeded")
	}
	must(t, n.Prune(context.Background(), none))
}

// TestRetire: ranges that are the node's no more are given to nobody, and it is
// known when nobody has an address of them, also by a daemon that starts meanwhile.
func TestRetire(t *testing.T) {
	h := newHost(t, dual...)
	vacated := make(chan bool, 100)
	h.cfg.Vacated = func() { vacated <- true }
	n := h.start()
	a := h.up(n)
	why := errors.New("the ranges are another node's")
	retire := func(n *Network, next ...netip.Prefix) {
		t.Helper()
		n.Retire(next, why)
		if err := n.Ready(); !errors.Is(err, why) {
			t.Errorf("ready: %v", err)
		}
		if _, err := n.Setup(context.Background(), h.newPod().req); !errors.Is(err, why) {
			t.Errorf("a pod got an address: %v", err)
		}
	}
	next := netip.MustParsePrefix("10.88.1.0/24")
	retire(n, next, dual[1])
	if len(vacated) > 0 || n.Vacant() {
		t.Error("a pod has an address, and the ranges are vacant")
	}
	retire(n, append(dual, next)...)
	if len(vacated) != 1 || !n.Vacant() {
		t.Error("all addresses stay what they are, and the ranges are not vacant")
	}
	n.Retire(nil, nil)
	if n.Ready() != nil || n.Vacant() {
		t.Errorf("ranges that came back: %v", n.Ready())
	}
	n = h.start()
	retire(n, next)
	must(t, n.Check(context.Background(), a.req))
	h.down(n, a)
	if len(vacated) != 2 || !n.Vacant() {
		t.Error("the last pod has gone, and the ranges are not vacant")
	}
}

// TestLoadIsTriedAgain: a run directory that cannot be used is named, and used
// once it can be.
func TestLoadIsTriedAgain(t *testing.T) {
	h := newHost(t, dual...)
	must(t, os.WriteFile(h.cfg.RunDir, nil, 0o600))
	n, err := New(h.cfg)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	defer func() { cancel(); must(t, <-ended) }()
	eventually(t, "the reason in Ready", func() bool {
		err := n.Ready()
		return err != nil && strings.Contains(err.Error(), "make journal")
	})
	must(t, os.Remove(h.cfg.RunDir))
	select {
	case <-n.loaded:
	case <-time.After(10 * time.Second):
		t.Error("not loaded within 10 s")
	}
}

func TestWaitsForRun(t *testing.T) {
	h := newHost(t, dual...)
	n, err := New(h.cfg)
	must(t, err)
	if n.Ready() == nil {
		t.Error("ready before run")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := n.Setup(ctx, h.newPod().req); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("setup before run: %v", err)
	}
}
