package hostcheck

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

func nodeRules() []rule {
	return []rule{
		{Kind{"NA-NODE-001", "the node's name is not valid", Error,
			"It names static pods and the Node object: lower-case letters, digits, '-' and '.', 253 at most.",
			"hostnamectl set-hostname NAME, or --hostname-override", false}, badName},
		{Kind{"NA-NODE-002", "the clock is not synchronised", Warning,
			"Certificates, leases and the times of logs and pods depend on it.",
			"timedatectl set-ntp true, or run chrony", false}, unsynced},
		{Kind{"NA-NODE-003", "the clock is wrong", Error,
			"It shows a time before this program was made: no certificate is valid then.",
			"set the clock: timedatectl set-ntp true, or hwclock", false}, pastClock},
		{Kind{"NA-NODE-004", "the machine has no id", Warning,
			"The node cannot be told from its clones.", "systemd-machine-id-setup", false}, noMachineID},
		{Kind{"NA-SWAP-001", "swap is on", Error,
			"kubelet does not start with swap unless failSwapOn is false; memory limits do not hold what is swapped.",
			"swapoff -a and remove it from /etc/fstab, or set failSwapOn: false", false}, swapOn},
		{Kind{"NA-LXCFS-001", "a FUSE mount is broken", Warning,
			"Its daemon died or hangs: what looks into it fails with \"transport endpoint is not connected\", or waits for ever.",
			"systemctl restart lxcfs; umount -l the mount if its daemon is gone for good", false}, brokenFuse},
	}
}

func badName(f *Facts) []hit {
	if f.Node == nil {
		return nil
	}
	if errs := validation.IsDNS1123Subdomain(f.Node.Name); len(errs) > 0 {
		return one(fmt.Sprintf("%q", f.Node.Name))
	}
	return nil
}

func unsynced(f *Facts) []hit {
	if f.Node == nil || !f.Node.Unsynced || f.Node.ClockInPast {
		return nil
	}
	return one("the kernel's clock is marked unsynchronised")
}

func pastClock(f *Facts) []hit {
	if f.Node == nil || !f.Node.ClockInPast {
		return nil
	}
	return one("it shows a time in the past")
}

func noMachineID(f *Facts) []hit {
	if f.Node == nil || f.Node.MachineID != "" {
		return nil
	}
	return one("/etc/machine-id is empty or not there")
}

func swapOn(f *Facts) []hit {
	if !f.Config.FailSwapOn || len(f.Swaps) == 0 {
		return nil
	}
	return one(strings.Join(f.Swaps, ", "))
}

func brokenFuse(f *Facts) []hit {
	var all []hit
	for _, m := range f.Fuses {
		if m.Error != "" {
			all = append(all, hit{seen: fmt.Sprintf("%s (%s): %s", m.Mount, m.Type, m.Error)})
		}
	}
	return all
}

func configRules() []rule {
	return []rule{
		{Kind{"NA-CONFIG-001", "the configuration is invalid", Error,
			"The daemon does not start with it. What follows was judged with the defaults.",
			"mend it; nodeagent config shows what is in force", false}, badConfig},
		{Kind{"NA-CONFIG-002", "the configuration has fields without effect", Info,
			"This version does not act on them.", "nothing must be done", false}, unusedConfig},
		{Kind{"NA-CONFIG-003", "the configuration is laxer than the defaults", Info,
			"An explicit value wins over the daemon's stricter default.", "remove the field, if nothing needs it", false}, looseConfig},
		{Kind{"NA-CONFIG-004", "others than root can decide what runs as root", Error,
			"Who can write this file or directory can start privileged pods.",
			"chown root:root and chmod go-w it", false}, openFiles},
	}
}

func badConfig(f *Facts) []hit {
	if f.Config.Invalid == "" {
		return nil
	}
	return one(f.Config.Invalid)
}

func unusedConfig(f *Facts) []hit {
	if len(f.Config.Unused) == 0 {
		return nil
	}
	return one(strings.Join(f.Config.Unused, ", "))
}

func looseConfig(f *Facts) []hit {
	if len(f.Config.Loose) == 0 {
		return nil
	}
	return one(strings.Join(f.Config.Loose, ", "))
}

func openFiles(f *Facts) []hit {
	var all []hit
	for _, file := range f.Config.Files {
		switch {
		case file.UID != 0:
			all = append(all, hit{seen: fmt.Sprintf("%s belongs to uid %d", file.Path, file.UID)})
		case file.Mode&0o022 != 0:
			all = append(all, hit{seen: fmt.Sprintf("%s has mode %#o", file.Path, file.Mode)})
		}
	}
	return all
}
