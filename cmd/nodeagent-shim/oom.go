//go:build linux

package main

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// oomFile finds the file that counts the OOM kills in the cgroup of pid: the
// v1 hierarchy of the memory controller where there is one, else the unified
// hierarchy. Empty when it cannot be found.
func oomFile(pid int) string {
	membership, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return ""
	}
	path, v1 := memoryCgroup(string(membership))
	if path == "" {
		return ""
	}
	if file := usualOOMFile(path, v1); exists(file) {
		return file
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	root, mountPoint := cgroupMount(mounts, v1)
	if mountPoint == "" {
		return ""
	}
	rel := strings.TrimPrefix(path, strings.TrimSuffix(root, "/"))
	if v1 {
		return filepath.Join(mountPoint, rel, "memory.oom_control")
	}
	return filepath.Join(mountPoint, rel, "memory.events")
}

// usualOOMFile is where the file is on nearly every host. The mount table, which
// would say it for sure, grows by five lines a pod, and the kernel takes longer to
// write it than anything else that this shim does to start a container.
func usualOOMFile(path string, v1 bool) string {
	if v1 {
		return filepath.Join("/sys/fs/cgroup/memory", path, "memory.oom_control")
	}
	return filepath.Join("/sys/fs/cgroup", path, "memory.events")
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// memoryCgroup reads /proc/<pid>/cgroup (cgroups(7)).
func memoryCgroup(membership string) (path string, v1 bool) {
	unified := ""
	for line := range strings.Lines(membership) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for controller := range strings.SplitSeq(parts[1], ",") {
			if controller == "memory" {
				return parts[2], true
			}
		}
		if parts[0] == "0" && parts[1] == "" {
			unified = parts[2]
		}
	}
	return unified, false
}

// cgroupMount reads mountinfo (proc_pid_mountinfo(5)) for the mount of the
// memory controller or of the unified hierarchy.
func cgroupMount(mountinfo []byte, v1 bool) (root, mountPoint string) {
	sc := bufio.NewScanner(bytes.NewReader(mountinfo))
	sc.Buffer(nil, 1<<20) // overlay mounts with many layers have long lines
	for sc.Scan() {
		head, tail, ok := strings.Cut(sc.Text(), " - ")
		fields, rest := strings.Fields(head), strings.Fields(tail)
		if !ok || len(fields) < 5 || len(rest) < 3 {
			continue
		}
		switch {
		case v1 && rest[0] == "cgroup":
			for option := range strings.SplitSeq(rest[2], ",") {
				if option == "memory" {
					return fields[3], fields[4]
				}
			}
		case !v1 && rest[0] == "cgroup2":
			return fields[3], fields[4]
		}
	}
	return "", ""
}

// oomCount tells how often the kernel killed somebody in a container for want of
// memory, also when its cgroup is gone: systemd removes a scope as soon as its last
// process has ended, be it before the shim knows of the end. The pod's cgroup stays,
// and on v2 counts what happens below it.
type oomCount struct {
	file   string // the container's
	above  string // the pod's; "" on v1, where each cgroup counts its own
	before uint64 // what the pod had counted when the container began
}

func countOOM(file string) oomCount {
	c := oomCount{file: file}
	if filepath.Base(file) == "memory.events" {
		c.above = filepath.Join(filepath.Dir(filepath.Dir(file)), "memory.events")
		c.before, _ = oomKills(c.above)
	}
	return c
}

func (c oomCount) kills() uint64 {
	n, err := oomKills(c.file)
	if err == nil || c.above == "" {
		return n
	}
	if n, err = oomKills(c.above); err != nil || n < c.before {
		return 0
	}
	return n - c.before
}

// oomKills reads the counter oom_kill of memory.events or memory.oom_control.
func oomKills(file string) (uint64, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(data) {
		if value, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			return strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 64)
		}
	}
	return 0, nil
}
