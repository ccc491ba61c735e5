// Package need owns the only reasons for which a test of this project may skip:
// typed facts about the machine that the test cannot change. It never skips for
// a missing program: the beds install what they need.
//
// A skip is printed as "SKIP need:<fact>: <why>", so that the machine bed can
// find every test that skipped on the host and run it in a guest that has the
// fact. Safe for concurrent use.
package need

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Fact is something that a kernel or a host has or lacks.
type Fact string

// The facts that tests ask for.
const (
	Root        Fact = "root"         // effective uid 0
	SysResource Fact = "sys-resource" // CAP_SYS_RESOURCE: lower an oom_score_adj
	CgroupV1    Fact = "cgroup-v1"    // memory and cpu controllers on v1 hierarchies
	CgroupV2    Fact = "cgroup-v2"    // memory and cpu controllers on the unified hierarchy
	HugetlbV2   Fact = "hugetlb-v2"   // the hugetlb controller on a v2 hierarchy, be it the only one there
	Systemd     Fact = "systemd"      // PID 1 is systemd
	AppArmor    Fact = "apparmor"     // AppArmor is active
	IPVS        Fact = "ipvs"         // IPVS is in the kernel
	HugePages   Fact = "hugepages"    // the kernel has huge pages of 2 MiB
	TmpfsNoSwap Fact = "tmpfs-noswap" // a tmpfs that is never swapped, from Linux 6.4
	Machine     Fact = "machine"      // guests may be booted: make test-machine asks for it
	Full        Fact = "full"         // there is an hour more: make test-machine FULL=1
	NoRace      Fact = "no-race"      // memory is the program's own: no race detector
)

// Have skips t unless the machine has every fact.
func Have(t testing.TB, facts ...Fact) {
	t.Helper()
	for _, f := range facts {
		if why := Lacks(f); why != "" {
			t.Skipf("need:%s: %s", f, why)
		}
	}
}

// ByName returns the fact that code calls need.<name>.
func ByName(name string) (Fact, bool) {
	f, ok := map[string]Fact{
		"Root": Root, "SysResource": SysResource, "CgroupV1": CgroupV1, "CgroupV2": CgroupV2, "HugetlbV2": HugetlbV2,
		"Systemd": Systemd, "AppArmor": AppArmor, "IPVS": IPVS, "HugePages": HugePages, "TmpfsNoSwap": TmpfsNoSwap, "Machine": Machine, "Full": Full,
		"NoRace": NoRace,
	}[name]
	return f, ok
}

// Lacks returns why the machine lacks the fact, or "".
func Lacks(f Fact) string {
	switch f {
	case Root:
		if os.Geteuid() != 0 {
			return "this test changes namespaces, cgroups or mounts and runs as root only"
		}
	case SysResource:
		if !effective(unix.CAP_SYS_RESOURCE) {
			return "this process may not lower an oom_score_adj"
		}
	case CgroupV1:
		if unified() {
			return "the controllers are on the unified hierarchy"
		}
	case CgroupV2:
		if !unified() {
			return "the controllers are on v1 hierarchies"
		}
	case HugetlbV2:
		if !has("/sys/fs/cgroup/unified/cgroup.controllers", "hugetlb") && !has("/sys/fs/cgroup/cgroup.controllers", "hugetlb") {
			return "hugetlb is on no v2 hierarchy"
		}
	case Systemd:
		if b, _ := os.ReadFile("/proc/1/comm"); strings.TrimSpace(string(b)) != "systemd" {
			return "PID 1 is not systemd"
		}
	case AppArmor:
		if b, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled"); !strings.HasPrefix(string(b), "Y") {
			return "AppArmor is not active"
		}
	case IPVS:
		if _, err := os.Stat("/proc/net/ip_vs"); err != nil {
			return "the kernel on " + runtime.GOARCH + " has no IPVS loaded"
		}
	case HugePages:
		if _, err := os.Stat("/sys/kernel/mm/hugepages/hugepages-2048kB"); err != nil {
			return "the kernel has no huge pages of 2 MiB"
		}
	case TmpfsNoSwap:
		if !noSwap() {
			return "the kernel's tmpfs has no noswap"
		}
	case Machine:
		if os.Getenv("NODEAGENT_MACHINE") == "" {
			return "booting a guest takes minutes: make test-machine"
		}
	case Full:
		if os.Getenv("NODEAGENT_MACHINE_FULL") == "" {
			return "an hour more: make test-machine FULL=1"
		}
	case NoRace:
		if race {
			return "the race detector's memory is not the program's"
		}
	default:
		return "unknown fact " + string(f)
	}
	return ""
}

func noSwap() bool {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(fs)
	return unix.FsconfigSetFlag(fs, "noswap") == nil
}

func unified() bool { return has("/sys/fs/cgroup/cgroup.controllers", "memory") }

func has(file, word string) bool {
	b, err := os.ReadFile(file)
	return err == nil && slices.Contains(strings.Fields(string(b)), word)
}

func effective(bit uint) bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	return data[bit/32].Effective&(1<<(bit%32)) != 0
}
