package machine_test

import (
	"testing"
	"time"

	"nodeagent/internal/test/need"
	"nodeagent/test/machine/guest"
)

// TestServices runs the tests by packets of the service proxy's backends: all of
// that by IPVS, and where everything was asked for those of the others.
func TestServices(t *testing.T) {
	t.Parallel()
	g := guest.Start(t, guest.Options{})
	if out, err := g.Shell(within(t, time.Minute), "modprobe ip_vs"); err != nil {
		t.Fatalf("load IPVS: %v: %s", err, out)
	}
	g.GoTest(t, "nodeagent/internal/net/ipvs")
	if need.Lacks(need.Full) == "" {
		g.GoTest(t, "nodeagent/internal/net/nftables")
		g.GoTest(t, "nodeagent/internal/net/iptables")
	}
}
