package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// atRest measures memory and CPU while nothing happens.
func (b *bench) atRest(ctx context.Context) error {
	b.say(fmt.Sprintf("at rest for %v", b.rest))
	if err := pause(ctx, 3*time.Second); err != nil { // garbage and timers of the start
		return err
	}
	cpu, err := cpuTime(b.agent.Pid)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := pause(ctx, b.rest); err != nil {
		return err
	}
	now, err := cpuTime(b.agent.Pid)
	if err != nil {
		return err
	}
	percent := 100 * (now - cpu).Seconds() / time.Since(start).Seconds()
	pss, err := rollup(b.agent.Pid, "Pss")
	if err != nil {
		return err
	}
	anon, err := b.shimAnon()
	if err != nil {
		return err
	}
	b.absolute(daemonMemory, fmt.Sprintf("memory of the daemon with %d pods (PSS)", b.many), mb(float64(pss)), float64(pss)/1e6, 45, "MB", "")
	b.measured(shimMemory, "memory of a shim (anonymous)", float64(anon), "median; floor: containerd's own shim")
	b.absolute(restCPU, fmt.Sprintf("CPU at rest with %d pods over %v", b.many, b.rest), fmt.Sprintf("%.1f ms", (now-cpu).Seconds()*1000), percent, 0.3, "%", "of one core")
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func mb(bytes float64) string { return fmt.Sprintf("%.2f MB", bytes/1e6) }

// cpuTime is the time that a process's threads have run, in nanoseconds of the
// scheduler (schedstat), not in ticks: 0.3 % of 30 s are nine ticks.
func cpuTime(pid int) (time.Duration, error) {
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

// rollup reads one field of /proc/PID/smaps_rollup, in bytes.
func rollup(pid int, field string) (int64, error) {
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

// shims are the pids of our shims in the bed.
func (b *bench) shims() []int {
	var pids []int
	for pid := range b.bed.Processes() {
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if strings.HasSuffix(strings.TrimSuffix(exe, " (deleted)"), "/containerd-shim-nodeagent-v1") {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (b *bench) shimAnon() (int64, error) {
	var all []float64
	for _, pid := range b.shims() {
		n, err := rollup(pid, "Anonymous")
		if err != nil {
			return 0, err
		}
		all = append(all, float64(n))
	}
	if len(all) == 0 {
		return 0, errors.New("find our shims: there is none")
	}
	return int64(median(all)), nil
}
