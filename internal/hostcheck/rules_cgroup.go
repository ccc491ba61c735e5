package hostcheck

import (
	"fmt"
	"strings"
)

func cgroupRules() []rule {
	return []rule{
		{Kind{"NA-CGROUP-001", "cgroup controllers are missing", Error,
			"Without them pods have no limits; the daemon does not start.",
			"boot a kernel with these controllers", false}, noControllers},
		{Kind{"NA-CGROUP-002", "cgroup controllers are not delegated", Error,
			"A cgroup above the pods' does not hand them down, so the pods' cgroups cannot have limits.",
			"move the processes out of that cgroup, or take another cgroupRoot", false}, undelegated},
		{Kind{"NA-CGROUP-003", "cgroup v1", Warning,
			"Works, but kubelet refuses it by default since 1.35, and v1 has no memory.high, no OOM kill of a whole container and no writable cgroup namespace.",
			"remove systemd.unified_cgroup_hierarchy=0 from the kernel's command line, or install a system whose default is v2, and reboot", false}, oldCgroups},
		{Kind{"NA-CGROUP-004", "the cgroup driver does not fit the system", Error,
			"With the systemd driver the pods' slices are asked of systemd over D-Bus.",
			"set cgroupDriver: cgroupfs, or none and leave the choice to the daemon", false}, wrongDriver},
		{Kind{"NA-CGROUP-005", "cgroups cannot be changed", Error,
			"The daemon makes a cgroup for every pod.",
			"mount -o remount,rw /sys/fs/cgroup; in a container, give it a writable cgroup mount of its own", false}, readOnlyCgroups},
		{Kind{"NA-CGROUP-006", "optional cgroup controllers are missing", Info,
			"Limits of what they control do nothing, such as hugepages-2Mi.",
			"nothing must be done", false}, fewControllers},
		{Kind{"NA-CGROUP-007", "two writers of cgroups", Warning,
			"systemd is PID 1 on cgroup v2 and cgroupDriver is cgroupfs: systemd may take away controllers from, or move, what it did not make.",
			"set cgroupDriver: systemd, or none", false}, twoWriters},
		{Kind{"NA-CGROUP-008", "swap is not accounted", Info,
			"A container's memory limit does not hold what it has in swap.",
			"add swapaccount=1 to the kernel's command line and reboot, or leave swap off", false}, noSwapAccount},
	}
}

func noControllers(f *Facts) []hit {
	c := f.Cgroups
	if c == nil {
		return nil
	}
	if c.Mode == "none" {
		return []hit{{seen: "no cgroup file system is mounted", cure: "mount -t cgroup2 none /sys/fs/cgroup, or boot with systemd"}}
	}
	if len(c.Missing) == 0 {
		return nil
	}
	h := hit{seen: fmt.Sprintf("cgroup %s without %s", c.Mode, strings.Join(c.Missing, ", "))}
	switch off, taken := both(c.Missing, c.Disabled), both(c.Missing, c.Elsewhere); {
	case len(off) > 0:
		h.cure = fmt.Sprintf("remove cgroup_disable=%s from the kernel's command line (/etc/default/grub, update-grub) and reboot", strings.Join(off, ","))
	case len(taken) > 0 && c.Mode == "v2":
		h.cure = fmt.Sprintf("a v1 hierarchy holds %s: find it with \"mount -t cgroup\", umount it, and reboot if it comes back", strings.Join(taken, ", "))
	case c.Namespaced:
		h.cure = "the root seen here is not the kernel's: give this container or service the controllers (Delegate=yes, or --cgroupns=host)"
	}
	return []hit{h}
}

func both(a, b []string) []string {
	var out []string
	for _, x := range a {
		for _, y := range b {
			if x == y {
				out = append(out, x)
			}
		}
	}
	return out
}

func undelegated(f *Facts) []hit {
	if f.Cgroups == nil {
		return nil
	}
	var all []hit
	for _, u := range f.Cgroups.Undelegated {
		seen := fmt.Sprintf("%s does not hand down %s", u.Cgroup, strings.Join(u.Controllers, ", "))
		if u.Processes > 0 {
			seen += fmt.Sprintf(": it has %d processes of its own", u.Processes)
		}
		all = append(all, hit{seen: seen})
	}
	return all
}

func oldCgroups(f *Facts) []hit {
	if f.Cgroups == nil || (f.Cgroups.Mode != "v1" && f.Cgroups.Mode != "hybrid") {
		return nil
	}
	return one("the controllers are on " + f.Cgroups.Mode + " hierarchies")
}

func wrongDriver(f *Facts) []hit {
	if f.Cgroups == nil || f.Cgroups.PID1 == "systemd" || f.Config.CgroupDriver != "systemd" {
		return nil
	}
	return one("cgroupDriver is systemd, PID 1 is " + f.Cgroups.PID1)
}

func readOnlyCgroups(f *Facts) []hit {
	if f.Cgroups == nil || !f.Cgroups.ReadOnly {
		return nil
	}
	return one("the cgroup file system is read-only here")
}

func fewControllers(f *Facts) []hit {
	if f.Cgroups == nil || len(f.Cgroups.Optional) == 0 || f.Cgroups.Mode == "none" {
		return nil
	}
	return one("cgroup " + f.Cgroups.Mode + " without " + strings.Join(f.Cgroups.Optional, ", "))
}

func twoWriters(f *Facts) []hit {
	c := f.Cgroups
	if c == nil || c.PID1 != "systemd" || c.Mode != "v2" || c.Driver != "cgroupfs" {
		return nil
	}
	return one("cgroupDriver is cgroupfs")
}

func noSwapAccount(f *Facts) []hit {
	c := f.Cgroups
	if c == nil || c.Swap || len(f.Swaps) == 0 {
		return nil
	}
	return one("swap is on: " + strings.Join(f.Swaps, ", "))
}
