package podnet

import (
	"context"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestTrafficOfPods(t *testing.T) {
	h := newHost(t, dual...)
	n := h.start()
	must(t, n.Ready())
	a, b := h.up(n), h.up(n)
	defer h.down(n, a, b)
	serve(t, b.netns, "tcp", "b", 80)
	serve(t, nil, "tcp", "node", 7070)
	serve(t, h.outside, "tcp", "outside", 9090)
	for i, fam := range []struct {
		name                   string
		gateway, node, outside netip.Addr
	}{
		{"IPv4", n.pool.spans[0].gateway, nodeAddr4, outsideAddr4},
		{"IPv6", n.pool.spans[1].gateway, nodeAddr6, outsideAddr6},
	} {
		t.Run(fam.name, func(t *testing.T) {
			wantAnswer(t, a.netns, "tcp", b.addrs[i], 80, "b", a.addrs[i])
			wantAnswer(t, nil, "tcp", b.addrs[i], 80, "b", fam.gateway)
			wantAnswer(t, a.netns, "tcp", fam.gateway, 7070, "node", a.addrs[i])
			wantAnswer(t, a.netns, "tcp", fam.node, 7070, "node", a.addrs[i])
			// The outside knows no way back to a pod: it has to see the node.
			wantAnswer(t, a.netns, "tcp", fam.outside, 9090, "outside", fam.node)
		})
	}
}

func TestPodInterface(t *testing.T) {
	h := newHost(t, dual...)
	n := h.start()
	p := h.up(n)
	defer h.down(n, p)
	p.do(func() error {
		for key, want := range map[string]string{
			"net/ipv6/conf/eth0/accept_ra":      "0",
			"net/ipv6/conf/eth0/accept_dad":     "0",
			"net/ipv4/conf/eth0/route_localnet": "0",
		} {
			got, err := os.ReadFile("/proc/sys/" + key)
			if strings.TrimSpace(string(got)) != want {
				t.Errorf("in the pod %s is %q (%v), want %s", key, got, err, want)
			}
		}
		return nil
	})
	for key, want := range map[string]string{
		"net/ipv6/conf/nodeagent0/accept_ra":      "0",
		"net/ipv6/conf/nodeagent0/accept_dad":     "0",
		"net/ipv4/conf/nodeagent0/route_localnet": "0",
		"net/ipv4/conf/all/route_localnet":        "0",
		"net/ipv4/ip_forward":                     "1",
		"net/ipv6/conf/all/forwarding":            "1",
		"net/bridge/bridge-nf-call-iptables":      "1",
		"net/bridge/bridge-nf-call-ip6tables":     "1",
	} {
		got, err := os.ReadFile("/proc/sys/" + key)
		if strings.TrimSpace(string(got)) != want {
			t.Errorf("on the node %s is %q (%v), want %s", key, got, err, want)
		}
	}
	link := n.record(p.req.SandboxID).Link
	if got, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + link + "/disable_ipv6"); strings.TrimSpace(string(got)) != "1" {
		t.Errorf("the port of the bridge speaks IPv6: %q, %v", got, err)
	}
	if info, err := netlink.LinkGetProtinfo(mustLink(t, link)); err != nil || !info.Hairpin {
		t.Errorf("hairpin mode: %+v, %v", info, err)
	}
	if got, want := mustLink(t, defaultBridge).Attrs().HardwareAddr.String(), macOf(n.pool.spans[0].gateway).String(); got != want {
		t.Errorf("the bridge's hardware address is %s, want %s whatever its ports", got, want)
	}
	// lo is up and eth0 has the one name that tools look for.
	serve(t, p.netns, "tcp", "self", 81)
	wantAnswer(t, p.netns, "tcp", netip.MustParseAddr("127.0.0.1"), 81, "self", netip.MustParseAddr("127.0.0.1"))
	must(t, n.Check(context.Background(), p.req))
}

// TestRouterAdvertisementsGoOn: a node that learns its default route from its
// router keeps it although it becomes a router itself.
func TestRouterAdvertisementsGoOn(t *testing.T) {
	h := newHost(t, dual...)
	const up0 = "net/ipv6/conf/up0/accept_ra"
	must(t, sysctl("net/ipv6/conf/all/forwarding", "0"))
	must(t, sysctl(up0, "1"))
	h.start()
	if got, _ := os.ReadFile("/proc/sys/" + up0); strings.TrimSpace(string(got)) != "2" {
		t.Errorf("accept_ra of the way out is %q, want 2", got)
	}
}

// TestForeignThingsStay: what is not ours is left alone by all that cleans up.
func TestForeignThingsStay(t *testing.T) {
	h := newHost(t, dual...)
	n := h.start()
	for _, c := range []string{
		"nft add table inet foreign", "nft add chain inet foreign c",
		"ip link add foreign0 type bridge", "ip link add foreign1 type veth peer name foreign2",
		"ip link set foreign1 master nodeagent0", "ip link add " + linkName("not ours") + " type veth peer name foreign3",
	} {
		_, err := run("sh", "-c", c)
		must(t, err)
	}
	for _, p := range []*pod{h.up(n, PortMapping{ContainerPort: 80, HostPort: 8080}), h.up(n)} {
		p.delete()
	}
	n = h.start()
	must(t, n.Prune(context.Background(), none))
	for _, c := range []string{
		"nft delete chain inet foreign c", "nft delete table inet foreign",
		"ip link del foreign0", "ip link del foreign1", "ip link del foreign3",
	} {
		if _, err := run("sh", "-c", c); err != nil {
			t.Error(err)
		}
	}
}

// TestMTUFollowsTheWayOut: and an explicit one wins.
func TestMTUFollowsTheWayOut(t *testing.T) {
	for _, c := range []struct{ uplink, asked, want int }{{1400, 0, 1400}, {1400, 1300, 1300}} {
		h := newHost(t, dual...)
		h.cfg.MTU = c.asked
		_, err := run("ip", "link", "set", "up0", "mtu", strconv.Itoa(c.uplink))
		must(t, err)
		_, err = run("ip", "route", "add", "default", "via", outsideAddr4.String())
		must(t, err)
		n := h.start()
		p := h.up(n)
		p.do(func() error {
			if got := mustLink(t, podLink).Attrs().MTU; got != c.want {
				t.Errorf("mtu of the pod is %d, want %d", got, c.want)
			}
			return nil
		})
		h.down(n, p)
		h.end()
	}
}

func TestSetupIsIdempotent(t *testing.T) {
	h := newHost(t, dual...)
	n := h.start()
	p := h.up(n)
	defer h.down(n, p)
	again, err := n.Setup(context.Background(), p.req)
	must(t, err)
	if again.Addrs[0] != p.addrs[0] || again.Addrs[1] != p.addrs[1] {
		t.Errorf("second setup gave %v, the first %v", again.Addrs, p.addrs)
	}
	n = h.start() // and over a restart
	again, err = n.Setup(context.Background(), p.req)
	must(t, err)
	if again.Addrs[0] != p.addrs[0] {
		t.Errorf("setup after a restart gave %v, the first %v", again.Addrs, p.addrs)
	}
}

func TestTeardownIsIdempotentAndSurvivesALostNamespace(t *testing.T) {
	h := newHost(t, dual...)
	n := h.start()
	p := h.up(n, PortMapping{ContainerPort: 80, HostPort: 8080})
	p.delete()
	must(t, n.Teardown(context.Background(), p.req))
	must(t, n.Teardown(context.Background(), p.req))
	must(t, n.Teardown(context.Background(), Request{SandboxID: "never-was"}))
}

func TestSetupRollsBack(t *testing.T) {
	h := newHost(t, dual...)
	n := h.start()
	for name, change := range map[string]func(*Request){
		"no namespace":    func(r *Request) { r.Netns = r.Netns + "-none" },
		"not a namespace": func(r *Request) { r.Netns = "/etc/passwd" },
		"the node's own":  func(r *Request) { r.Netns = "/proc/self/ns/net" },
		"another kind":    func(r *Request) { r.Netns = "/proc/self/ns/mnt" },
		"bad sandbox id":  func(r *Request) { r.SandboxID = "../x" },
		"bad name":        func(r *Request) { r.Name = "x;K8S_POD_UID=1" },
		"bad protocol":    func(r *Request) { r.Ports = []PortMapping{{Protocol: "icmp", HostPort: 1, ContainerPort: 1}} },
		"bad port":        func(r *Request) { r.Ports = []PortMapping{{HostPort: 70000, ContainerPort: 1}} },
	} {
		t.Run(name, func(t *testing.T) {
			p := h.newPod()
			change(&p.req)
			_, err := n.Setup(context.Background(), p.req)
			if err == nil || (name == "the node's own") != strings.Contains(err.Error(), "the node's own") {
				t.Errorf("setup: %v", err)
			}
			h.checkNothingLeft()
		})
	}
	// An interface that is in the way fails the middle of it.
	p := h.newPod(PortMapping{ContainerPort: 80, HostPort: 8080})
	p.do(func() error {
		_, err := run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "x")
		return err
	})
	if _, err := n.Setup(context.Background(), p.req); err == nil {
		t.Error("setup succeeded although eth0 was there")
	}
	h.checkNothingLeft()
	if len(n.pool.used) != 0 {
		t.Errorf("addresses still taken: %v", n.pool.used)
	}
}

func TestExhaustion(t *testing.T) {
	h := newHost(t, netip.MustParsePrefix("10.88.7.0/29"))
	n := h.start()
	var pods []*pod
	for range 5 { // 8 less network, bridge and broadcast
		pods = append(pods, h.up(n))
	}
	extra := h.newPod()
	if _, err := n.Setup(context.Background(), extra.req); err == nil || !strings.Contains(err.Error(), "no free address") {
		t.Errorf("sixth pod of five: %v", err)
	}
	h.down(n, pods[2])
	res, err := n.Setup(context.Background(), extra.req)
	must(t, err)
	if res.Addrs[0] != pods[2].addrs[0] {
		t.Errorf("got %v, only %v was free", res.Addrs, pods[2].addrs)
	}
	h.down(n, extra, pods[0], pods[1], pods[3], pods[4])
}
