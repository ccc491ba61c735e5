package machine_test

import (
	"testing"

	"nodeagent/test/machine/guest"
)

// TestCgroups runs the tests of the cgroup tree on v2, and on v1 under systemd.
func TestCgroups(t *testing.T) {
	for name, cmdline := range map[string][]string{
		"v2": nil,
		"v1": {"systemd.unified_cgroup_hierarchy=0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := guest.Start(t, guest.Options{Cmdline: cmdline})
			g.GoTest(t, "nodeagent/internal/cgroups")
		})
	}
}
