package spec

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// maskedPaths and readonlyPaths are kubelet's default lists
// (pkg/securitycontext), which follow moby's oci/defaults.go.
var (
	maskedPaths = [...]string{
		"/proc/acpi",
		"/proc/asound",
		"/proc/interrupts",
		"/proc/kcore",
		"/proc/keys",
		"/proc/latency_stats",
		"/proc/sched_debug",
		"/proc/scsi",
		"/proc/timer_list",
		"/proc/timer_stats",
		"/sys/devices/virtual/powercap",
		"/sys/firmware",
	}
	readonlyPaths = [...]string{
		"/proc/bus",
		"/proc/fs",
		"/proc/irq",
		"/proc/sys",
		"/proc/sysrq-trigger",
	}
)

// setMaskedPaths hides what tells of, or changes, the host. The config may add
// paths, never take one away: an empty list there means the default, since the
// protocol cannot tell it from none.
func setMaskedPaths(in Input, s *specs.Spec) error {
	sec := in.Container.GetLinux().GetSecurityContext()
	if sec.GetPrivileged() || in.UnmaskedProc {
		return nil
	}
	s.Linux.MaskedPaths = union(maskedPaths[:], in.Host.ThermalPaths, sec.GetMaskedPaths())
	s.Linux.ReadonlyPaths = union(readonlyPaths[:], sec.GetReadonlyPaths())
	return nil
}

// union is the sorted union of lists.
func union(lists ...[]string) []string {
	out := slices.Concat(lists...)
	slices.Sort(out)
	return slices.Compact(out)
}
