package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CPUTime is the time that a process's threads have run, in nanoseconds of the
// scheduler (schedstat), not in ticks: 0.3 % of 30 s are nine ticks.
func CPUTime(pid int) (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("read the CPU time of process %d: %w", pid, errors.Join(err, os.ErrNotExist))
	}
	var sum time.Duration
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that ended
		}
		first, _, _ := strings.Cut(string(b), " ")
		n, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse %s: %w", f, err)
		}
		sum += time.Duration(n)
	}
	return sum, nil
}

// GroupTime is what all processes of a cgroup have used, those that ended, too; cpuStat
// is its file cpu.stat. The kernel tells it in microseconds.
func GroupTime(cpuStat string) (time.Duration, error) {
	b, err := os.ReadFile(cpuStat)
	if err != nil {
		return 0, fmt.Errorf("read the CPU time of a cgroup: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			return time.Duration(n) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("find usage_usec in %s", cpuStat)
}

// Share is the part of one core that a process takes while nothing happens, as a
// fraction, and the CPU time of it.
func Share(ctx context.Context, pid int, over time.Duration) (float64, time.Duration, error) {
	before, err := CPUTime(pid)
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	if err := Pause(ctx, over); err != nil {
		return 0, 0, err
	}
	now, err := CPUTime(pid)
	return (now - before).Seconds() / time.Since(start).Seconds(), now - before, err
}

// Rollup reads one field of /proc/PID/smaps_rollup, in bytes.
func Rollup(pid int, field string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("find %s in the memory map of process %d", field, pid)
}

// Pause waits: what is at rest has to be looked at for a while.
func Pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// Tmpfs finds a directory in memory: /run, as on a node, or what a machine without
// a service manager has instead.
func Tmpfs() (string, error) {
	for _, dir := range []string{"/run", "/dev/shm"} {
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err == nil && fs.Type == unix.TMPFS_MAGIC {
			return dir, nil
		}
	}
	return "", errors.New("find a place for what lasts until a reboot: neither /run nor /dev/shm is a tmpfs; mount one")
}
