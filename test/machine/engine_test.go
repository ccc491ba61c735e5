package machine_test

import (
	"testing"

	"nodeagent/test/machine/guest"
)

// TestEngine runs the engine's tests on cgroup v2 under systemd, one guest for
// all of them.
func TestEngine(t *testing.T) {
	g := guest.Start(t, guest.Options{})
	for _, p := range []struct {
		pkg  string
		args []string
	}{
		{pkg: "nodeagent/internal/net/podnet"},
		{pkg: "nodeagent/cmd/containerd-shim-nodeagent-v1"},
		{pkg: "nodeagent/internal/cri"},
	} {
		t.Run(p.pkg, func(t *testing.T) { g.GoTest(t, p.pkg, p.args...) })
	}
}
