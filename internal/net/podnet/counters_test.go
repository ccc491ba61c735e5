package podnet

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

const devHead = "Inter-|   Receive                                                |  Transmit\n" +
	" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n"

func TestParseDev(t *testing.T) {
	text := devHead + "    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n" +
		"  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n" + "veth12: 1 1 1 1 0 0 0 0 1 1 1 1 0 0 0 0\n" +
		"a\"\\b\x1b:18446744073709551615 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n" + "cut: 1 2 3"
	for host, want := range map[bool]int{true: 2, false: 3} {
		if got := parseDev([]byte(text), host); len(got) != want {
			t.Errorf("host %t: %+v, want %d", host, got, want)
		}
	}
	got := parseDev([]byte(text), true)
	if got[0] != (Counters{"eth0", 1, 2, 3, 4, 5, 6, 7, 8}) || got[1].Name != "a\"\\b\x1b" || got[1].RxBytes != 1<<64-1 {
		t.Errorf("%+v", got)
	}
}

// FuzzParseDev: whatever a list says, no name has what cannot be in one.
func FuzzParseDev(f *testing.F) {
	f.Add([]byte(devHead + "  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, c := range parseDev(text, false) {
			if strings.ContainsAny(c.Name, ":\n") {
				t.Errorf("%q", c.Name)
			}
		}
	})
}

// TestReadCounters: what came and went is told of each network by a thread that
// leaves nothing behind; what is no network of a pod is not told of.
func TestReadCounters(t *testing.T) {
	h := newHost(t)
	ns := h.outside
	gone := filepath.Join(t.TempDir(), "gone")
	before := ReadCounters(t.Context(), []string{ns.path, "", gone, "/etc/passwd", "/proc/self/ns/net"})
	if len(before) != 2 || len(before[ns.path]) != 1 || len(before[""]) == 0 {
		t.Fatalf("told of %+v", before)
	}
	serve(t, ns, "tcp", "outside", 8080)
	if _, err := call(t, nil, "tcp", outsideAddr4, 8080); err != nil {
		t.Fatal(err)
	}
	b := before[ns.path][0]
	eventually(t, "the same said of both ends", func() bool { // one is read after the other
		all := ReadCounters(t.Context(), []string{ns.path, ""})
		a := all[ns.path][0]
		if a.Name != "eth0" || a.RxBytes <= b.RxBytes || a.TxBytes <= b.TxBytes || a.TxPackets <= b.TxPackets {
			t.Errorf("%+v after a connection, before %+v", a, b)
		}
		return slices.ContainsFunc(all[""], func(c Counters) bool { return c.Name == "up0" && c.RxBytes == a.TxBytes })
	})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if all := ReadCounters(ended, []string{ns.path}); len(all) != 0 {
		t.Errorf("read although nobody waits: %v", all)
	}
}

// A pod that may make interfaces makes many: the list is bounded.
func TestReadCountersOfManyInterfaces(t *testing.T) {
	ns := newHost(t).outside
	ns.do(func() error {
		for i := range 200 {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = fmt.Sprintf("many-%d-a", i)
			veth := netlink.NewVeth(attrs)
			veth.PeerName = fmt.Sprintf("many-%d-b", i)
			if err := netlink.LinkAdd(veth); err != nil {
				return err
			}
		}
		return nil
	})
	if n := len(ReadCounters(t.Context(), []string{ns.path})[ns.path]); n < 100 || n > 300 {
		t.Errorf("%d interfaces were told of", n)
	}
}
