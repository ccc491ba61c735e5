package cgroups

import (
	"strings"

	"github.com/containerd/cgroups/v3/cgroup2"
)

func (r *reader) limitsV2(l *Limits) {
	l.CPUWeight = r.limit("cpu", "cpu.weight")
	if b := r.file("cpu", "cpu.max"); b != nil {
		quota, period, err := parseCPUMax(b)
		r.miss("cpu.max", err)
		if err == nil {
			l.CPUQuota, l.CPUPeriod = quota, &period
		}
	}
	l.CPUs = strings.TrimSpace(string(r.file("cpuset", "cpuset.cpus.effective")))
	l.MemoryNodes = strings.TrimSpace(string(r.file("cpuset", "cpuset.mems.effective")))
	l.MemoryMin = r.limit("memory", "memory.min")
	l.MemoryLow = r.limit("memory", "memory.low")
	l.MemoryHigh = r.limit("memory", "memory.high")
	l.MemoryMax = r.limit("memory", "memory.max")
	l.SwapMax = r.limit("memory", "memory.swap.max")
	if v := r.limit("memory", "memory.oom.group"); v != nil {
		l.OOMGroup = new(*v == 1)
	}
	l.Pids = r.limit("pids", "pids.max")
	l.Hugepages = r.hugepages(".max")
}

// usageV2 takes the statistics of containerd's library.
func (r *reader) usageV2(f *Facts) {
	cg, err := cgroup2.Load(r.paths["unified"], cgroup2.WithMountpoint(r.tree.unified))
	if err != nil {
		r.miss("statistics", err)
		return
	}
	u := &f.Usage
	if m, err := cg.StatFiltered(cgroup2.StatCPU); err != nil {
		r.miss("cpu.stat", err)
	} else {
		u.CPUNanos = m.CPU.UsageUsec * 1000
		u.CPUPeriods, u.CPUThrottled = m.CPU.NrPeriods, m.CPU.NrThrottled
		u.CPUThrottledTime = m.CPU.ThrottledUsec * 1000
	}
	if m, err := cg.StatFiltered(cgroup2.StatMemory); err != nil {
		r.miss("memory.stat", err)
	} else {
		u.MemoryBytes, u.MemoryPeak = m.Memory.Usage, m.Memory.MaxUsage
		u.MemoryWorkingSet = u.MemoryBytes - min(u.MemoryBytes, m.Memory.InactiveFile)
		u.MemoryAnon, u.SwapBytes = m.Memory.Anon, m.Memory.SwapUsage
	}
	if m, err := cg.StatFiltered(cgroup2.StatMemoryEvents); err != nil {
		r.miss("memory.events", err)
	} else if e := m.MemoryEvents; e != nil {
		f.OOM = OOM{Kills: e.OomKill, Events: e.Oom, Limit: e.Max, High: e.High}
	}
	if m, err := cg.StatFiltered(cgroup2.StatPids | cgroup2.StatIO); err == nil {
		u.Pids = m.Pids.Current
		for _, e := range m.Io.Usage {
			u.ReadBytes += e.Rbytes
			u.WriteBytes += e.Wbytes
		}
	}
}
