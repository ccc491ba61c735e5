package conntrack

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
	"nodeagent/internal/test/need"
)

// TestCount: connections to these addresses are counted, of each protocol by itself, and
// of a node port those to addresses of the node.
func TestCount(t *testing.T) {
	need.Have(t, need.Root)
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	t.Cleanup(func() { must(t, netlink.ConntrackTableFlush(netlink.ConntrackTable)) })
	const udp, tcp = unix.IPPROTO_UDP, unix.IPPROTO_TCP
	flow(t, tcp, "10.1.0.1:21", "10.96.0.21:80", "10.0.0.1:8080")
	flow(t, tcp, "10.1.0.1:22", "10.96.0.21:80", "10.0.0.2:8080")
	flow(t, udp, "10.1.0.1:23", "10.96.0.21:80", "10.0.0.1:8080")
	flow(t, tcp, "10.1.0.1:24", "10.96.0.22:80", "10.0.0.1:8080")
	flow(t, tcp, "10.1.0.1:25", "127.0.0.1:30080", "10.0.0.1:8080")
	flow(t, tcp, "10.1.0.1:26", "10.1.0.9:30080", "10.0.0.1:8080")
	flow(t, tcp, "[fd00::1]:27", "[fd00:96::1]:80", "[fd00::2]:80")
	at := func(a string, p net.Proto) net.Address {
		x := netip.MustParseAddrPort(a)
		return net.Address{IP: x.Addr(), Port: x.Port(), Proto: p}
	}
	for _, c := range []struct {
		to   []net.Address
		want int
	}{
		{nil, 0},
		{[]net.Address{at("10.96.0.21:80", net.TCP)}, 2},
		{[]net.Address{at("10.96.0.21:80", net.UDP)}, 1},
		{[]net.Address{at("0.0.0.0:30080", net.TCP)}, 1},
		{[]net.Address{at("10.96.0.21:80", net.TCP), at("0.0.0.0:30080", net.TCP), at("[fd00:96::1]:80", net.TCP)}, 4},
	} {
		if n, err := (Table{}).Count(t.Context(), c.to); err != nil || n != c.want {
			t.Errorf("to %v there are %d connections, %v; want %d", c.to, n, err, c.want)
		}
	}
}
