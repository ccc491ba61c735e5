package machine_test

import (
	"testing"
	"time"

	"nodeagent/internal/test/need"
	"nodeagent/test/machine/guest"
)

// TestServices runs the tests of the service proxy's backends: all of that by IPVS, with
// the loop and the program around it, of nftables what hangs on the kernel's version, and where everything was asked for all
// of the others.
func TestServices(t *testing.T) {
	t.Parallel()
	g := guest.Start(t, guest.Options{})
	if out, err := g.Shell(within(t, time.Minute), "modprobe ip_vs"); err != nil {
		t.Fatalf("load IPVS: %v: %s", err, out)
	}
	g.GoTest(t, "nodeagent/internal/net/ipvs", "-skip", "^(TestPartialEqualsFull|TestTables|FuzzTables)$") // which ask no kernel
	g.GoTest(t, "nodeagent/internal/net/proxy", "-run", "^(TestHealsInTimeByIPVS|TestDaemonByIPVS)$")
	// What a kernel tells of rules differs from one to the next: what is ours must look
	// untouched on this one, too.
	g.GoTest(t, "nodeagent/internal/net/nftables", "-run", "^(TestOneChange|TestAlike|TestReadable|TestLooks|TestProbe|TestTakeOver)$")
	if need.Lacks(need.Full) == "" {
		g.GoTest(t, "nodeagent/internal/net/nftables")
		g.GoTest(t, "nodeagent/internal/net/iptables")
	}
}
