package hostcheck

import (
	"fmt"
	"slices"
	"strings"
)

func diskRules() []rule {
	return []rule{
		{Kind{"NA-DISK-001", "a directory of the daemon is on a read-only file system", Error,
			"Often the kernel made it so after an error of the disk.",
			"dmesg | grep -i error; check the disk, then mount -o remount,rw", false}, readOnlyDisk},
		{Kind{"NA-DISK-002", "little space is left", Warning,
			"Below kubelet's thresholds of eviction: 10 % where pods' files are, 15 % where images are. A full disk fails pulls, logs and databases.",
			"nodeagent images prune; du -x --max-depth=2", false}, littleSpace},
		{Kind{"NA-DISK-003", "few inodes are left", Warning,
			"Below kubelet's threshold of eviction (5 %): new files fail with \"no space left\" although there is space.",
			"nodeagent images prune; find the directory with the many small files: du -x --inodes", false}, fewInodes},
		{Kind{"NA-DISK-004", "programs in volumes cannot run", Warning,
			"The file system of the pods' volumes is mounted noexec, and volumes inherit that.",
			"remove noexec from its line in /etc/fstab and remount", false}, noExec},
		{Kind{"NA-DISK-005", "volumes ignore set-uid bits and devices", Info,
			"The file system of the pods' volumes is mounted nosuid or nodev, and volumes inherit that.",
			"nothing must be done, unless a pod needs it", false}, noSuid},
		{Kind{"NA-DISK-006", "images are on a file system that overlayfs cannot use", Error,
			"An overlay's upper layer cannot be on overlay, FUSE or a network file system.",
			"move containerd's root to ext4 or xfs: root = \"…\" in /etc/containerd/config.toml", false}, wrongImageDisk},
		{Kind{"NA-DISK-007", "state is on a file system that may go away", Warning,
			"FUSE and network file systems hang or vanish with a daemon or a server, and lock files and fsync may not hold there.",
			"move it to a local disk", false}, wrongDisk},
	}
}

func readOnlyDisk(f *Facts) []hit {
	return disks(f, func(d Disk) string {
		if d.ReadOnly {
			return "read-only"
		}
		return ""
	})
}

// disks makes a hit of each disk of which say has something to say.
func disks(f *Facts, say func(Disk) string) []hit {
	var all []hit
	for _, d := range f.Disks {
		if s := say(d); s != "" {
			all = append(all, hit{seen: fmt.Sprintf("%s (%s): %s", d.Mount, strings.Join(d.Uses, ", "), s)})
		}
	}
	return all
}

// kubelet's hard thresholds of eviction, in percent.
const (
	leastNode, leastImage, leastInodes = 10, 15, 5
)

func littleSpace(f *Facts) []hit {
	return disks(f, func(d Disk) string {
		least := 0
		if d.Pods {
			least = leastNode
		}
		if d.Image {
			least = leastImage
		}
		if least == 0 || d.Size == 0 || d.Free/uint64(least) >= d.Size/100 {
			return ""
		}
		return fmt.Sprintf("%d MiB of %d MiB are free, less than %d %%", d.Free>>20, d.Size>>20, least)
	})
}

func fewInodes(f *Facts) []hit {
	return disks(f, func(d Disk) string {
		if !d.Pods && !d.Image || d.Inodes == 0 || d.Left*100 >= d.Inodes*leastInodes {
			return "" // a file system without a number of inodes has as many as it wants
		}
		return fmt.Sprintf("%d of %d inodes are free, less than %d %%", d.Left, d.Inodes, leastInodes)
	})
}

func noExec(f *Facts) []hit {
	return disks(f, func(d Disk) string {
		if d.Pods && slices.Contains(d.Options, "noexec") {
			return "noexec"
		}
		return ""
	})
}

func noSuid(f *Facts) []hit {
	return disks(f, func(d Disk) string {
		var has []string
		for _, o := range []string{"nosuid", "nodev"} {
			if d.Pods && slices.Contains(d.Options, o) {
				has = append(has, o)
			}
		}
		return strings.Join(has, ",")
	})
}

// far tells that a file system is not of this machine's own disks.
func far(d Disk) bool {
	return strings.HasPrefix(d.Type, "fuse") || slices.Contains([]string{"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "afs"}, d.Type)
}

func wrongImageDisk(f *Facts) []hit {
	return disks(f, func(d Disk) string {
		if d.Image && f.Config.Snapshotter == "overlayfs" && (far(d) || slices.Contains([]string{"overlay", "vfat", "exfat", "ntfs3", "squashfs"}, d.Type)) {
			return d.Type
		}
		return ""
	})
}

func wrongDisk(f *Facts) []hit {
	return disks(f, func(d Disk) string {
		if !d.Image && far(d) {
			return d.Type
		}
		return ""
	})
}
