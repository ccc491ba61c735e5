package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
	"nodeagent/internal/test/need"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// flow makes an entry as a packet would: from a client to an address of a service,
// answered by an endpoint.
func flow(t *testing.T, proto uint8, client, to, end string) {
	t.Helper()
	c, d, e := netip.MustParseAddrPort(client), netip.MustParseAddrPort(to), netip.MustParseAddrPort(end)
	family := netlink.InetFamily(unix.AF_INET)
	if c.Addr().Is6() {
		family = unix.AF_INET6
	}
	f := &netlink.ConntrackFlow{
		FamilyType: uint8(family), TimeOut: 100,
		Forward: netlink.IPTuple{Protocol: proto, SrcIP: c.Addr().AsSlice(), SrcPort: c.Port(), DstIP: d.Addr().AsSlice(), DstPort: d.Port()},
		Reverse: netlink.IPTuple{Protocol: proto, SrcIP: e.Addr().AsSlice(), SrcPort: e.Port(), DstIP: c.Addr().AsSlice(), DstPort: c.Port()},
	}
	if proto == unix.IPPROTO_TCP {
		f.ProtoInfo = &netlink.ProtoInfoTCP{State: 3}
	}
	must(t, netlink.ConntrackCreate(netlink.ConntrackTable, family, f))
}

// flows lists what there is, by the client's port.
func flows(t *testing.T) []uint16 {
	t.Helper()
	var out []uint16
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		all, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
		must(t, err)
		for _, f := range all {
			out = append(out, f.Forward.SrcPort)
		}
	}
	slices.Sort(out)
	return out
}

// TestForget: of the kernel's entries those go that lead to no endpoint of the
// service, and no others.
func TestForget(t *testing.T) {
	need.Have(t, need.Root)
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	const udp, tcp = unix.IPPROTO_UDP, unix.IPPROTO_TCP
	flow(t, udp, "10.1.0.1:1", "10.96.0.1:53", "10.0.0.1:53")      // its endpoint is there
	flow(t, udp, "10.1.0.1:2", "10.96.0.1:53", "10.0.0.2:53")      // gone
	flow(t, udp, "10.1.0.1:3", "10.96.0.1:53", "10.0.0.1:54")      // another port of it
	flow(t, udp, "10.1.0.1:4", "10.96.0.1:53", "10.96.0.1:53")     // from before there were rules
	flow(t, tcp, "10.1.0.1:5", "10.96.0.1:53", "10.0.0.2:53")      // no business of ours
	flow(t, udp, "10.1.0.1:6", "10.96.0.2:53", "10.0.0.2:53")      // nobody asked
	flow(t, udp, "10.1.0.1:7", "127.0.0.1:30053", "10.0.0.2:53")   // a node port
	flow(t, udp, "10.1.0.1:8", "10.1.0.9:30053", "10.0.0.2:53")    // not the node's address
	flow(t, udp, "[fd00::1]:9", "[fd00:96::1]:53", "[fd00::2]:53") // nobody is left
	at := func(a string) net.Address {
		p := netip.MustParseAddrPort(a)
		return net.Address{IP: p.Addr(), Port: p.Port(), Proto: net.UDP}
	}
	here := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:53")}
	want := []uint16{1, 5, 6, 8}
	n, err := Table{}.Forget(t.Context(), net.Flows{at("10.96.0.1:53"): here, at("0.0.0.0:30053"): here, at("[fd00:96::1]:53"): nil})
	if got := flows(t); err != nil || n != 5 || !slices.Equal(got, want) {
		t.Errorf("%d are forgotten, %v; the flows %v are left, want %v", n, err, got, want)
	}
}

// TestTune: values are written where they are others, and defaults take no room away.
func TestTune(t *testing.T) {
	files := map[string]string{
		"proc/sys/net/ipv4/ip_forward": "0\n", "proc/sys/net/netfilter/nf_conntrack_max": "1000000\n",
		"proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established": "5\n", "sys/module/nf_conntrack/parameters/hashsize": "100\n",
		"proc/sys/net/netfilter/nf_conntrack_udp_timeout": "30\n",
	}
	for _, c := range []struct {
		limits Limits
		want   map[string]string
	}{
		{Limits{Max: 200000, AtLeast: true, Established: time.Hour, CloseWait: time.Hour, Liberal: true}, map[string]string{
			"proc/sys/net/ipv4/ip_forward": "1", "proc/sys/net/netfilter/nf_conntrack_max": "1000000\n",
			"proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established": "3600", "sys/module/nf_conntrack/parameters/hashsize": "50000",
			"proc/sys/net/netfilter/nf_conntrack_udp_timeout": "30\n"}},
		{Limits{Max: 200000}, map[string]string{"proc/sys/net/netfilter/nf_conntrack_max": "200000"}},
		{Limits{}, map[string]string{"proc/sys/net/netfilter/nf_conntrack_max": "1000000\n", "sys/module/nf_conntrack/parameters/hashsize": "100\n"}},
	} {
		root := t.TempDir()
		for path, text := range files {
			must(t, os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755))
			must(t, os.WriteFile(filepath.Join(root, path), []byte(text), 0o644))
		}
		must(t, c.limits.Tune(root))
		for path, want := range c.want {
			if got, err := os.ReadFile(filepath.Join(root, path)); err != nil || string(got) != want {
				t.Errorf("%s has %s = %q, %v; want %q", fmt.Sprintf("%+v", c.limits), path, got, err, want)
			}
		}
		if _, err := os.Stat(filepath.Join(root, "proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal")); err == nil {
			t.Error("a setting was made that the kernel lacks")
		}
	}
}

// TestFind: of all connections only what is to go is kept, whatever else there is; and
// who has no time left does not look on.
func TestFind(t *testing.T) {
	need.Have(t, need.Root)
	for i := range 3000 {
		flow(t, unix.IPPROTO_UDP, fmt.Sprintf("10.2.%d.%d:9", i/250, i%250+1), "10.96.0.7:53", "10.0.0.1:53")
	}
	flow(t, unix.IPPROTO_UDP, "10.1.0.1:2", "10.96.0.7:53", "10.0.0.2:53")
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	must(t, err)
	defer s.Close()
	f := stale{flows: net.Flows{{IP: netip.MustParseAddr("10.96.0.7"), Port: 53, Proto: net.UDP}: {netip.MustParseAddrPort("10.0.0.1:53")}}}
	h := &nl.SocketHandle{Socket: s}
	gone, err := f.find(t.Context(), h, unix.AF_INET)
	if err != nil || len(gone) != 1 || parseEntry(gone[0]).ends.String() != "10.0.0.2:53" {
		t.Errorf("%d of 3001 are kept, %v", len(gone), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.find(ctx, h, unix.AF_INET); !errors.Is(err, context.Canceled) {
		t.Errorf("without time: %v", err)
	}
	must(t, netlink.ConntrackTableFlush(netlink.ConntrackTable))
}

// FuzzEntry: whatever is in a message, it is read without harm.
func FuzzEntry(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x00\x34\x00\x01\x80\x14\x00\x01\x80\x08\x00\x01\x00\x0a\x01\x00\x01\x08\x00\x02\x00\x0a\x60\x00\x01\x1c\x00\x02\x80\x05\x00\x01\x00\x11\x00\x00\x00\x06\x00\x02\x00\x00\x01\x00\x00\x06\x00\x03\x00\x00\x35\x00\x00"))
	f.Add([]byte{2, 0, 0, 0, 3, 0, 1, 0x80})
	f.Add([]byte{2, 0, 0, 0, 9, 0, 1, 0x80, 5})
	f.Fuzz(func(t *testing.T, msg []byte) {
		e := parseEntry(msg)
		if e.called.Addr().Is4In6() || e.ends.Addr().Is4In6() {
			t.Errorf("%v", e)
		}
	})
}
