package hostcheck

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"
)

// OldestKernel is the first with every system call that the daemon makes
// (openat2), and with what runc needs of cgroup v2.
const OldestKernel = "5.6"

func kernelRules() []rule {
	return []rule{
		{Kind{"NA-KERNEL-001", "the kernel is too old", Error,
			"The daemon opens files of pods with openat2 and signals processes by pidfd, so that no pod can lead it elsewhere.",
			"install a kernel of " + OldestKernel + " or newer and reboot", false}, oldKernel},
		{Kind{"NA-KERNEL-002", "overlayfs does not work", Error,
			"The root of every container is an overlay mount.",
			"modprobe overlay; if that fails, look for a file that blocks it: grep -r overlay /etc/modprobe.d", false}, noOverlay},
		{Kind{"NA-KERNEL-003", "the kernel lacks namespaces", Error,
			"Pods are separated by them.", "boot a kernel with CONFIG_NAMESPACES and all kinds below it", false}, noNamespaces},
		{Kind{"NA-KERNEL-004", "the kernel lacks seccomp", Error,
			"Containers get the default profile unless a pod or seccompDefault says otherwise; without it none starts.",
			"boot a kernel with CONFIG_SECCOMP_FILTER, or set seccompDefault: false and accept what that opens", false}, noSeccomp},
		{Kind{"NA-KERNEL-005", "modules of the running kernel are gone", Warning,
			"The kernel was upgraded and not booted; overlay, veth, nf_tables and the like can be loaded no more.",
			"reboot into the new kernel", false}, noModules},
		{Kind{"NA-KERNEL-006", "pressure stall information is off", Info,
			"Memory pressure cannot be told from memory use; stats and inspect show none.",
			"add psi=1 to the kernel's command line and reboot", false}, noPressure},
		{Kind{"NA-KERNEL-007", "the kernel cannot kill a whole cgroup at once", Info,
			"Before 5.14 there is no cgroup.kill; processes are killed one by one, which a fork bomb makes slow.",
			"nothing must be done; a newer kernel is better", false}, noKill},
		{Kind{"NA-KERNEL-008", "user namespaces are off", Info,
			"Pods with users of their own (hostUsers: false) cannot run; this version has none yet.",
			"sysctl -w user.max_user_namespaces=15000", false}, noUserNamespaces},
	}
}

func oldKernel(f *Facts) []hit {
	if f.Kernel == nil {
		return nil
	}
	release, _, _ := strings.Cut(f.Kernel.Release, "-")
	v, err := version.ParseGeneric(release)
	switch {
	case err == nil && v.LessThan(version.MustParseGeneric(OldestKernel)):
		return one("this is " + f.Kernel.Release)
	case !f.Kernel.Pidfd:
		return one(f.Kernel.Release + " has no pidfd_open")
	case !f.Kernel.Openat2:
		return one(f.Kernel.Release + " has no openat2")
	}
	return nil
}

func noOverlay(f *Facts) []hit {
	if f.Tried == nil || f.Tried.Overlay == nil || *f.Tried.Overlay == "" {
		return nil
	}
	return one("mounting one in a namespace of its own: " + *f.Tried.Overlay)
}

func noNamespaces(f *Facts) []hit {
	if f.Kernel == nil {
		return nil
	}
	var lacks []string
	for _, ns := range []string{"ipc", "mnt", "net", "pid", "uts"} {
		if !slices.Contains(f.Kernel.Namespaces, ns) {
			lacks = append(lacks, ns)
		}
	}
	if len(lacks) == 0 {
		return nil
	}
	return one("missing are " + strings.Join(lacks, ", "))
}

func noSeccomp(f *Facts) []hit {
	if f.Kernel == nil || f.Kernel.Seccomp || !f.Config.Seccomp {
		return nil
	}
	return one("/proc/sys/kernel/seccomp is not there")
}

func noModules(f *Facts) []hit {
	if f.Kernel == nil || !f.Kernel.Modules || f.Kernel.ModulesDir {
		return nil
	}
	return one("/lib/modules/" + f.Kernel.Release + " is not there")
}

func noPressure(f *Facts) []hit {
	if f.Kernel == nil || f.Kernel.PSI {
		return nil
	}
	return one("/proc/pressure is not there or is off")
}

func noKill(f *Facts) []hit {
	if f.Kernel == nil || f.Cgroups == nil || f.Kernel.CgroupKill || f.Cgroups.Mode != "v2" {
		return nil
	}
	return one("the kernel is " + f.Kernel.Release)
}

func noUserNamespaces(f *Facts) []hit {
	switch {
	case f.Kernel == nil:
		return nil
	case !slices.Contains(f.Kernel.Namespaces, "user"):
		return one("the kernel has none")
	case f.Kernel.MaxUserNS == 0:
		return one("user.max_user_namespaces is 0")
	}
	return nil
}

func privilegeRules() []rule {
	return []rule{
		{Kind{"NA-PRIV-001", "this process may not lower an oom_score_adj enough", Warning,
			"Without CAP_SYS_RESOURCE containers of guaranteed pods get a higher score than their class has: under a shortage the kernel may kill them before others.",
			"run as root with CAP_SYS_RESOURCE: check CapabilityBoundingSet= of the unit, or the container that this runs in", false}, highScores},
		{Kind{"NA-PRIV-002", "root lacks capabilities", Error,
			"The daemon makes mounts, namespaces, devices and firewall rules.",
			"give the daemon these capabilities: check CapabilityBoundingSet= of the unit, or the container that this runs in", false}, noCapability},
	}
}

// lowestScore is that of a guaranteed pod's containers.
const lowestScore = -997

func highScores(f *Facts) []hit {
	if f.Privilege == nil || !f.Privilege.Root || f.Privilege.LowestOOMAdj <= lowestScore {
		return nil
	}
	return one(fmt.Sprintf("the lowest that can be set is %d, guaranteed pods have %d", f.Privilege.LowestOOMAdj, lowestScore))
}

func noCapability(f *Facts) []hit {
	if f.Privilege == nil || !f.Privilege.Root || len(f.Privilege.Lacks) == 0 {
		return nil
	}
	return one("missing are " + strings.Join(f.Privilege.Lacks, ", "))
}
