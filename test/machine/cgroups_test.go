package machine_test

import (
	"testing"

	"nodeagent/test/machine/guest"
)

// v1 makes a guest's systemd put the controllers on cgroup v1.
const v1 = "systemd.unified_cgroup_hierarchy=0"

// TestCgroups runs the tests of the cgroup tree on v2.
func TestCgroups(t *testing.T) {
	t.Parallel()
	guest.Start(t, guest.Options{}).GoTest(t, "nodeagent/internal/cgroups")
}

// TestCgroupsV1 runs them on v1 under systemd.
func TestCgroupsV1(t *testing.T) {
	t.Parallel()
	guest.Start(t, guest.Options{Cmdline: []string{v1}}).GoTest(t, "nodeagent/internal/cgroups")
}
