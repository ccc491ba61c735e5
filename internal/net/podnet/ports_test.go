package podnet

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestHostPorts(t *testing.T) {
	h := newHost(t, dual...)
	testHostPorts(t, h, h.start())
}

// TestHostPortsByIptables holds the other backend to the same.
func TestHostPortsByIptables(t *testing.T) {
	h := newHost(t, dual...)
	n := h.start()
	n.useIptables(t)
	testHostPorts(t, h, n)
	must(t, n.rules.(*iptBackend).clear())
	for _, tool := range []string{"iptables-legacy", "ip6tables-legacy"} {
		if out, err := run(tool, "-t", "nat", "-S"); err != nil || strings.Contains(out, "NODEAGENT") {
			t.Errorf("left after clear: %s (%v)", out, err)
		}
	}
}

// useIptables makes a network do as it would without nf_tables.
func (n *Network) useIptables(t *testing.T) {
	t.Helper()
	n.rulesMu.Lock()
	defer n.rulesMu.Unlock()
	must(t, n.rules.(*nftBackend).clear())
	n.rules.close()
	b, err := newIptables(n.ruleSet())
	must(t, err)
	must(t, b.sync(context.Background(), nil))
	must(t, b.sync(context.Background(), nil))
	n.rules = b
}

func testHostPorts(t *testing.T, h *host, n *Network) {
	a := h.up(n,
		PortMapping{ContainerPort: 80, HostPort: 8080},
		PortMapping{ContainerPort: 53, HostPort: 5300, Protocol: "UDP"},
		PortMapping{ContainerPort: 80, HostPort: 8081, HostIP: nodeAddr4.String()},
		PortMapping{ContainerPort: 80, HostPort: 8082, HostIP: "0.0.0.0"},
		PortMapping{ContainerPort: 80, HostPort: 8083, HostIP: "::"},
		PortMapping{ContainerPort: 80, HostPort: 8084, HostIP: "192.0.2.77"},
		PortMapping{ContainerPort: 80, HostPort: 8085, HostIP: "127.0.0.1"},
		PortMapping{ContainerPort: 53, HostPort: 8085, HostIP: "127.0.0.1", Protocol: "UDP"},
		PortMapping{ContainerPort: 80, HostPort: 8086, HostIP: "::1"})
	b := h.up(n)
	serve(t, a.netns, "tcp", "a", 80)
	serve(t, a.netns, "udp", "a", 53)
	serve(t, b.netns, "tcp", "b", 8080)
	serve(t, h.outside, "tcp", "outside", 8080)
	gw := []netip.Addr{n.pool.spans[0].gateway, n.pool.spans[1].gateway}
	node, out := []netip.Addr{nodeAddr4, nodeAddr6}, []netip.Addr{outsideAddr4, outsideAddr6}
	for i := range node {
		wantAnswer(t, h.outside, "tcp", node[i], 8080, "a", out[i])
		wantAnswer(t, h.outside, "udp", node[i], 5300, "a", out[i])
		wantAnswer(t, nil, "tcp", node[i], 8080, "a", node[i])
		// From a pod on the same bridge, and from the pod itself: only if it
		// sees the bridge does its answer come back translated.
		wantAnswer(t, b.netns, "tcp", node[i], 8080, "a", gw[i])
		wantAnswer(t, b.netns, "udp", node[i], 5300, "a", gw[i])
		wantAnswer(t, a.netns, "tcp", node[i], 8080, "a", gw[i])
		wantAnswer(t, a.netns, "tcp", gw[i], 8080, "a", gw[i])
		// The same port elsewhere is somebody else's business.
		wantAnswer(t, a.netns, "tcp", b.addrs[i], 8080, "b", a.addrs[i])
		wantAnswer(t, a.netns, "tcp", out[i], 8080, "outside", node[i])
	}
	wantAnswer(t, h.outside, "tcp", nodeAddr4, 8081, "a", outsideAddr4)
	wantNoAnswer(t, h.outside, "tcp", nodeAddr6, 8081)
	wantNoAnswer(t, nil, "tcp", gw[0], 8081)
	wantAnswer(t, h.outside, "tcp", nodeAddr4, 8082, "a", outsideAddr4)
	wantNoAnswer(t, h.outside, "tcp", nodeAddr6, 8082)
	wantAnswer(t, h.outside, "tcp", nodeAddr6, 8083, "a", outsideAddr6)
	wantNoAnswer(t, h.outside, "tcp", nodeAddr4, 8083)
	wantNoAnswer(t, h.outside, "tcp", nodeAddr4, 8084)
	// Loopback is not served, on purpose, but where a pod asks for it: to callers on the
	// node from another of its addresses, and to nobody else.
	lo := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	for i, port := range []int{8085, 8086} {
		wantNoAnswer(t, nil, "tcp", lo[i], 8080)
		wantNoAnswer(t, nil, "tcp", lo[i], port)
		wantNoAnswer(t, nil, "tcp", node[i], port)
		wantNoAnswer(t, h.outside, "tcp", node[i], port)
		local := net.TCPAddrFromAddrPort(netip.AddrPortFrom(node[i], 0))
		if got, err := callFrom(t, nil, "tcp", local, lo[i], port); err != nil || got != "a "+node[i].String() {
			t.Errorf("call %s from %s: %q, %v", lo[i], local, got, err)
		}
	}
	local := net.UDPAddrFromAddrPort(netip.AddrPortFrom(nodeAddr4, 0))
	if got, err := callFrom(t, nil, "udp", local, lo[0], 8085); err != nil || got != "a "+nodeAddr4.String() {
		t.Errorf("call %s from %s by UDP: %q, %v", lo[0], local, got, err)
	}
	h.down(n, a, b)
	wantNoAnswer(t, h.outside, "tcp", nodeAddr4, 8080)
}

func TestHostPortTaken(t *testing.T) {
	h := newHost(t, dual...)
	n := h.start()
	a := h.up(n, PortMapping{ContainerPort: 80, HostPort: 8080, HostIP: "192.0.2.10"})
	for _, ip := range []string{"", "0.0.0.0", "192.0.2.10"} {
		b := h.newPod(PortMapping{ContainerPort: 80, HostPort: 8080, HostIP: ip})
		if _, err := n.Setup(context.Background(), b.req); err == nil || !strings.Contains(err.Error(), a.req.Name) {
			t.Errorf("host port 8080 on %q beside 192.0.2.10: %v", ip, err)
		}
	}
	for _, m := range []PortMapping{
		{ContainerPort: 80, HostPort: 8080, HostIP: "::"},
		{ContainerPort: 80, HostPort: 8080, HostIP: "192.0.2.11"},
		{ContainerPort: 80, HostPort: 8080, Protocol: "SCTP"},
	} {
		h.down(n, h.up(n, m))
	}
	h.down(n, a)
}

// TestClosingPortsStayClosed: a look at the table while a Teardown runs must not
// publish its ports again.
func TestClosingPortsStayClosed(t *testing.T) {
	h := newHost(t, dual...)
	n := h.start()
	p := h.up(n, PortMapping{ContainerPort: 80, HostPort: 8080})
	if got := len(n.wanted()); got != 2 {
		t.Errorf("%d bindings wanted, want one a family", got)
	}
	n.closing(n.record(p.req.SandboxID))
	if got := n.wanted(); len(got) != 0 {
		t.Errorf("still wanted: %v", got)
	}
	h.down(n, p)
}

// TestUDPPeerFollows: a peer that has been sending all along, so that its
// connection entry never ends, reaches the pod that has the port now.
func TestUDPPeerFollows(t *testing.T) {
	h := newHost(t, dual...)
	n := h.start()
	port := PortMapping{ContainerPort: 53, HostPort: 5300, Protocol: "UDP"}
	talk := func() string {
		got, _ := callFrom(t, h.outside, "udp", &net.UDPAddr{Port: 40000}, nodeAddr4, 5300)
		return got
	}
	serve(t, nil, "udp", "node", 5300) // before there is any pod
	if got := talk(); got != "node "+outsideAddr4.String() {
		t.Fatalf("first answer %q", got)
	}
	a := h.up(n, port)
	serve(t, a.netns, "udp", "a", 53)
	if got := talk(); got != "a "+outsideAddr4.String() {
		t.Errorf("with pod a the answer is %q", got)
	}
	h.down(n, a)
	b := h.up(n, port)
	serve(t, b.netns, "udp", "b", 53)
	if got := talk(); got != "b "+outsideAddr4.String() {
		t.Errorf("with pod b the answer is %q", got)
	}
	h.down(n, b)
}

// TestTableComesBack: another tool flushes all rules.
func TestTableComesBack(t *testing.T) {
	h := newHost(t, dual...)
	n := h.start()
	a := h.up(n, PortMapping{ContainerPort: 80, HostPort: 8080})
	defer h.down(n, a)
	serve(t, a.netns, "tcp", "a", 80)
	wantAnswer(t, h.outside, "tcp", nodeAddr4, 8080, "a", outsideAddr4)
	for name, harm := range map[string][]string{
		"flush ruleset": {"flush", "ruleset"},
		"delete table":  {"delete", "table", "inet", "nodeagent-podnet"},
		"flush chain":   {"flush", "chain", "inet", "nodeagent-podnet", "hostports"},
	} {
		_, err := run("nft", harm...)
		must(t, err)
		since := time.Now()
		eventually(t, "table again after "+name, func() bool {
			b := &nftBackend{set: n.ruleSet()}
			c, err := nftConn(time.Now().Add(time.Second))
			must(t, err)
			have, whole := b.read(c)
			return whole && len(have["hostports4"]) == 1
		})
		t.Logf("%s: back after %v", name, time.Since(since))
		wantAnswer(t, h.outside, "tcp", nodeAddr4, 8080, "a", outsideAddr4)
	}
}

func TestManyElementsReadBack(t *testing.T) {
	h := newHost(t, dual...)
	n := h.start()
	h.stop() // nobody else touches the table now
	b := &nftBackend{set: n.ruleSet()}
	defer b.close()
	var want []binding
	for i := range 5000 {
		p := port{Proto: unix.IPPROTO_TCP, HostPort: uint16(i + 1), Container: 80}
		for _, pod := range []string{"10.88.0.9", "fd88::9"} {
			want = append(want, binding{port: p, Pod: netip.MustParseAddr(pod)})
		}
	}
	since := time.Now()
	must(t, b.sync(context.Background(), want))
	t.Logf("10000 elements in %v", time.Since(since))
	got, err := readBindings(n.ruleSet())
	must(t, err)
	if len(got) != len(want) {
		t.Errorf("wrote %d, the kernel holds %d", len(want), len(got))
	}
	since = time.Now()
	must(t, b.sync(context.Background(), want))
	t.Logf("nothing to do: %v", time.Since(since))
	must(t, b.sync(context.Background(), nil))
}

// TestForwardPolicyDrop: the node's own firewall drops what it forwards.
func TestForwardPolicyDrop(t *testing.T) {
	for _, tool := range []string{"iptables", "iptables-legacy"} {
		t.Run(tool, func(t *testing.T) {
			h := newHost(t, dual...)
			six := "ip6" + strings.TrimPrefix(tool, "ip")
			for _, x := range []string{tool, six} {
				_, err := run(x, "-P", "FORWARD", "DROP")
				must(t, err)
				defer func() { // legacy tables live as long as the namespace
					_, _ = run(x, "-P", "FORWARD", "ACCEPT")
					_, _ = run(x, "-F")
					_, _ = run(x, "-X")
				}()
			}
			n := h.start()
			a := h.up(n, PortMapping{ContainerPort: 80, HostPort: 8080})
			defer h.down(n, a)
			serve(t, h.outside, "tcp", "outside", 9090)
			serve(t, a.netns, "tcp", "a", 80)
			wantAnswer(t, a.netns, "tcp", outsideAddr4, 9090, "outside", nodeAddr4)
			wantAnswer(t, a.netns, "tcp", outsideAddr6, 9090, "outside", nodeAddr6)
			wantAnswer(t, h.outside, "tcp", nodeAddr4, 8080, "a", outsideAddr4)
			wantAnswer(t, h.outside, "tcp", nodeAddr6, 8080, "a", outsideAddr6)
		})
	}
}

// TestLoopbackIsNotReachable: a neighbour sends to 127.0.0.1 by way of the node
// (CVE-2020-8558).
func TestLoopbackIsNotReachable(t *testing.T) {
	h := newHost(t, dual...)
	n := h.start()
	a := h.up(n, PortMapping{ContainerPort: 80, HostPort: 7272, HostIP: "127.0.0.1"})
	defer h.down(n, a)
	serve(t, nil, "tcp", "secret", 7171)
	serve(t, a.netns, "tcp", "published there", 80)
	for _, from := range []struct {
		ns *netns
		gw string
	}{{h.outside, nodeAddr4.String()}, {a.netns, n.pool.spans[0].gateway.String()}} {
		from.ns.do(func() error {
			must(t, ensureUp("eth0"))
			must(t, sysctl("net/ipv4/conf/eth0/route_localnet", "1"))
			_, _ = run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
			_, err := run("ip", "route", "add", "127.0.0.1/32", "via", from.gw)
			return err
		})
		wantNoAnswer(t, from.ns, "tcp", netip.MustParseAddr("127.0.0.1"), 7171)
		wantNoAnswer(t, from.ns, "tcp", netip.MustParseAddr("127.0.0.1"), 7272)
	}
}
