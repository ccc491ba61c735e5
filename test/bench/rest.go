package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"nodeagent/test/measure"
)

// atRest measures memory and CPU while nothing happens.
func (b *bench) atRest(ctx context.Context) error {
	b.say(fmt.Sprintf("at rest for %v", b.rest))
	if err := measure.Pause(ctx, 3*time.Second); err != nil { // garbage and timers of the start
		return err
	}
	share, cpu, err := measure.Share(ctx, b.agent.Pid, b.rest)
	if err != nil {
		return err
	}
	pss, err := measure.Rollup(b.agent.Pid, "Pss")
	if err != nil {
		return err
	}
	anon, err := b.shimAnon()
	if err != nil {
		return err
	}
	b.absolute(daemonMemory, fmt.Sprintf("memory of the daemon with %d pods (PSS)", b.many), measure.MB(float64(pss)), float64(pss)/1e6, 45, "MB", "")
	b.measured(shimMemory, "memory of a shim (anonymous)", float64(anon), "median; floor: containerd's own shim")
	b.absolute(restCPU, fmt.Sprintf("CPU at rest with %d pods over %v", b.many, b.rest), fmt.Sprintf("%.1f ms", cpu.Seconds()*1000), 100*share, 0.3, "%", "of one core")
	return nil
}

// shims are the pids of our shims in the bed.
func (b *bench) shims() []int {
	var pids []int
	for pid := range b.bed.Processes() {
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if strings.HasSuffix(strings.TrimSuffix(exe, " (deleted)"), "/nodeagent-shim") {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (b *bench) shimAnon() (int64, error) {
	var all []float64
	for _, pid := range b.shims() {
		n, err := measure.Rollup(pid, "Anonymous")
		if err != nil {
			return 0, err
		}
		all = append(all, float64(n))
	}
	if len(all) == 0 {
		return 0, errors.New("find our shims: there is none")
	}
	return int64(measure.Median(all)), nil
}
