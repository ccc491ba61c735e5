package podnet

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nodeagent/internal/test/need"
)

// The node of the tests and its one neighbour, who plays the outside world.
var (
	nodeAddr4    = netip.MustParseAddr("192.0.2.10")
	nodeAddr6    = netip.MustParseAddr("2001:db8::10")
	outsideAddr4 = netip.MustParseAddr("192.0.2.1")
	outsideAddr6 = netip.MustParseAddr("2001:db8::1")
	dual         = []netip.Prefix{netip.MustParsePrefix("10.88.0.0/24"), netip.MustParsePrefix("fd88::/64")}
)

// host is a node: the process's own network namespace with a neighbour.
type host struct {
	t       testing.TB
	dir     string
	cfg     Config
	outside *netns
	stop    func()
	lost    chan string
}

// newHost makes a node; what a test leaves on it fails the test.
func newHost(t testing.TB, cidrs ...netip.Prefix) *host {
	t.Helper()
	need.Have(t, need.Root)
	h := &host{t: t, dir: t.TempDir(), stop: func() {}, lost: make(chan string, 100)}
	h.cfg = Config{
		StateDir: filepath.Join(h.dir, "state"), RunDir: filepath.Join(h.dir, "run"),
		CNIConfDir: filepath.Join(h.dir, "net.d"), CNIBinDir: filepath.Join(h.dir, "bin"),
		CIDRs: cidrs, Lost: func(id string) { h.lost <- id },
		Logger: slog.New(slog.NewTextHandler(testLog{t}, nil)),
	}
	must(t, os.Mkdir(h.cfg.CNIConfDir, 0o755))
	must(t, os.Mkdir(h.cfg.CNIBinDir, 0o755))
	t.Cleanup(h.end)
	h.outside = newNetns(t, h.dir)
	must(t, ensureUp("lo"))
	attrs := netlink.NewLinkAttrs()
	// Two ends with one index: the kernel takes the pair for a device below
	// which there is none, and reports its carrier up to a second later.
	attrs.Name, attrs.Index = "up0", 1000
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace = "eth0", netlink.NsFd(int(h.outside.f.Fd()))
	must(t, netlink.LinkAdd(veth))
	addAddrs(t, "up0", nodeAddr4, nodeAddr6)
	h.outside.do(func() error {
		must(t, ensureUp("lo"))
		addAddrs(t, "eth0", outsideAddr4, outsideAddr6)
		return nil
	})
	return h
}

func addAddrs(t testing.TB, link string, v4, v6 netip.Addr) {
	t.Helper()
	l, err := netlink.LinkByName(link)
	must(t, err)
	must(t, sysctl("net/ipv6/conf/"+link+"/accept_dad", "0"))
	must(t, netlink.AddrAdd(l, kernelAddr(netip.PrefixFrom(v4, 24))))
	must(t, netlink.AddrAdd(l, kernelAddr(netip.PrefixFrom(v6, 64))))
	must(t, netlink.LinkSetUp(l))
}

func ensureUp(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// start runs a daemon's network; calling it again is a restart of the daemon.
func (h *host) start() *Network {
	h.t.Helper()
	h.stop()
	n, err := New(h.cfg)
	must(h.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	h.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			h.t.Errorf("run: %v", err)
		}
		h.stop = func() {}
	}
	select {
	case <-n.loaded:
	case <-time.After(20 * time.Second):
		h.t.Fatal("the network was not loaded within 20 s")
	}
	return n
}

// end looks for leaks and cleans up.
func (h *host) end() {
	h.stop()
	h.checkNothingLeft()
	for _, name := range []string{"up0", defaultBridge} {
		if l, err := netlink.LinkByName(name); err == nil {
			_ = netlink.LinkDel(l)
		}
	}
	for _, fam := range []string{"inet nodeagent-podnet", "ip filter", "ip6 filter", "ip nat", "ip6 nat"} {
		_, _ = run("nft", append([]string{"delete", "table"}, strings.Fields(fam)...)...)
	}
}

// checkNothingLeft fails the test for whatever outlived its pod.
func (h *host) checkNothingLeft() {
	h.t.Helper()
	links, err := retryDump(netlink.LinkList)
	must(h.t, err)
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, linkPrefix) {
			h.t.Errorf("left: interface %s (%s)", l.Attrs().Name, l.Attrs().Alias)
		}
	}
	for _, dir := range []string{h.cfg.RunDir, h.cfg.StateDir} {
		entries, _ := os.ReadDir(filepath.Join(dir, "podnet"))
		for _, e := range entries {
			if e.Name() != bootFile && e.Name() != lastFile {
				h.t.Errorf("left: record %s", filepath.Join(dir, "podnet", e.Name()))
			}
		}
	}
	n, err := New(h.cfg)
	must(h.t, err)
	if probeNft() == nil {
		bs, err := readBindings(n.ruleSet())
		must(h.t, err)
		for _, b := range bs {
			h.t.Errorf("left: published port %s to %s", b.port, b.Pod)
		}
	}
}

// netns is a network namespace pinned by a file.
type netns struct {
	t    testing.TB
	path string
	f    *os.File
	gone bool
}

var nsCount atomic.Int64

func newNetns(t testing.TB, dir string) *netns {
	t.Helper()
	n := &netns{t: t, path: filepath.Join(dir, fmt.Sprintf("ns-%d", nsCount.Add(1)))}
	must(t, os.WriteFile(n.path, nil, 0o600))
	errs := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", n.path, "", unix.MS_BIND, "")
		}
		errs <- err
	}()
	must(t, <-errs)
	f, err := os.Open(n.path)
	must(t, err)
	n.f = f
	t.Cleanup(n.delete)
	return n
}

// delete unpins the namespace, as the runtime does.
func (n *netns) delete() {
	if n.gone {
		return
	}
	n.gone = true
	n.f.Close()
	must(n.t, unix.Unmount(n.path, unix.MNT_DETACH))
	must(n.t, os.Remove(n.path))
}

// do runs fn in the namespace.
func (n *netns) do(fn func() error) {
	n.t.Helper()
	must(n.t, inNetns(n.f, fn))
}

// pod is a sandbox of a test.
type pod struct {
	*netns
	req   Request
	addrs []netip.Addr
}

var podCount atomic.Int64

func (h *host) newPod(ports ...PortMapping) *pod {
	h.t.Helper()
	id := fmt.Sprintf("%08x", podCount.Add(1))
	p := &pod{netns: newNetns(h.t, h.dir)}
	p.req = Request{SandboxID: "sb-" + id, Netns: p.path, Namespace: "default", Name: "pod-" + id, UID: "uid-" + id, Ports: ports}
	return p
}

// up makes a pod that has its network.
func (h *host) up(n *Network, ports ...PortMapping) *pod {
	h.t.Helper()
	p := h.newPod(ports...)
	res, err := n.Setup(context.Background(), p.req)
	must(h.t, err)
	p.addrs = res.Addrs
	return p
}

func (h *host) down(n *Network, pods ...*pod) {
	h.t.Helper()
	var wg sync.WaitGroup
	for _, p := range pods {
		wg.Go(func() {
			if err := n.Teardown(context.Background(), p.req); err != nil {
				h.t.Error(err)
			}
			p.delete()
		})
	}
	wg.Wait()
}

// eventually waits for what another goroutine or the kernel does.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("no %s within 10 s", what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Logf("%s", strings.TrimSpace(string(b)))
	return len(b), nil
}
