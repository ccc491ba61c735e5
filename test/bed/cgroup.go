package bed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/test/need"
)

// hierarchies returns the mount points of every cgroup hierarchy; unified is the
// v2 one, or empty.
func hierarchies() (all []string, unified string, err error) {
	mounts, err := mountinfo("self")
	if err != nil {
		return nil, "", err
	}
	for _, m := range mounts {
		switch m.Type {
		case "cgroup2":
			unified = m.Point
			fallthrough
		case "cgroup":
			all = append(all, m.Point)
		}
	}
	if len(all) == 0 {
		return nil, "", errors.New("find cgroup mounts: none in /proc/self/mountinfo")
	}
	return all, unified, nil
}

// makeCgroup makes /name in every hierarchy and /name/system, for the daemons,
// in the one by which the bed finds its processes again: v2 where it is mounted.
func makeCgroup(name string) (system string, err error) {
	all, unified, err := hierarchies()
	if err != nil {
		return "", err
	}
	for _, h := range all {
		dir := filepath.Join(h, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
		// A v1 cpuset without CPUs and memory nodes takes no process.
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
			if v, err := os.ReadFile(filepath.Join(h, f)); err == nil && h != unified {
				if err := os.WriteFile(filepath.Join(dir, f), v, 0o644); err != nil {
					return "", err
				}
			}
		}
	}
	track := unified
	if track == "" {
		track = all[0]
	}
	system = filepath.Join(track, name, "system")
	if err := os.Mkdir(system, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return system, nil
}

// Apart moves a process into a cgroup of its own below the bed's, where its children are
// born, and returns the file that counts what all of them use of processors. It wants
// cgroup v2, which counts without a controller.
func (b *Bed) Apart(pid int) (cpuStat string, err error) {
	_, unified, err := hierarchies()
	if err != nil {
		return "", err
	}
	if unified == "" {
		return "", errors.New("count what a process and its children use: no cgroup v2 is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
	}
	dir := filepath.Join(unified, b.CgroupRoot(), fmt.Sprintf("process-%d", pid))
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return filepath.Join(dir, "cpu.stat"), os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

// killCgroup kills every process below /name in every hierarchy and waits until
// none is left.
func killCgroup(name string, limit time.Duration) error {
	all, _, err := hierarchies()
	if err != nil {
		return err
	}
	for wait, end := time.Millisecond, time.Now().Add(limit); ; wait = min(2*wait, 50*time.Millisecond) {
		var left []int
		for _, h := range all {
			dir := filepath.Join(h, name)
			pids := pidsBelow(dir)
			left = append(left, pids...)
			if len(pids) > 0 && os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) == nil {
				continue
			}
			for _, pid := range pids {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
			thaw(dir, len(pids) > 0)
		}
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(end) {
			slices.Sort(left)
			return fmt.Errorf("kill the processes of cgroup /%s: %v still live after %v", name, slices.Compact(left), limit)
		}
		time.Sleep(wait) // v1 has no file that tells of the last exit
	}
}

// thaw lets frozen processes die: on v1 SIGKILL waits for the thaw.
func thaw(dir string, any bool) {
	if !any {
		return
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "freezer.state" {
			_ = os.WriteFile(path, []byte("THAWED"), 0)
		}
		return nil
	})
}

func pidsBelow(dir string) []int {
	var pids []int
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		b, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for _, f := range bytes.Fields(b) {
			if pid, err := strconv.Atoi(string(f)); err == nil && pid > 1 && pid != os.Getpid() {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// cgroupDirs lists the directories below /name in every hierarchy, deepest
// first, /name itself last.
func cgroupDirs(name string) ([]string, error) {
	all, _, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, h := range all {
		var here []string
		_ = filepath.WalkDir(filepath.Join(h, name), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				here = append(here, path)
			}
			return nil
		})
		slices.Reverse(here)
		dirs = append(dirs, here...)
	}
	return dirs, nil
}

func removeCgroup(name string, limit time.Duration) error {
	end := time.Now().Add(limit)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		dirs, err := cgroupDirs(name)
		if err != nil || len(dirs) == 0 {
			return err
		}
		for _, d := range dirs {
			err = errors.Join(err, ignoreNotExist(unix.Rmdir(d), d))
		}
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("remove cgroup /%s: %w", name, err)
		}
		time.Sleep(wait) // EBUSY until the kernel has finished with the last task
	}
}

// stopSlice has systemd forget a slice and all that is in it, if it made one: what
// is only removed it would show for ever.
func stopSlice(name string) error {
	dirs, err := cgroupDirs(name)
	if err != nil || len(dirs) == 0 || need.Lacks(need.Systemd) != "" {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "systemctl", "stop", name).CombinedOutput(); err != nil {
		return fmt.Errorf("stop the bed's slice %s: %w\n%s", name, err, out)
	}
	return nil
}

func ignoreNotExist(err error, what string) error {
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("%s: %w", strings.TrimSpace(what), err)
}
