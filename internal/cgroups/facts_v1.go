package cgroups

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup1"
	v1 "github.com/containerd/cgroups/v3/cgroup1/stats"
)

func (r *reader) limitsV1(l *Limits) {
	l.CPUShares = r.limit("cpu", "cpu.shares")
	l.CPUQuota = r.limit("cpu", "cpu.cfs_quota_us")
	l.CPUPeriod = r.limit("cpu", "cpu.cfs_period_us")
	l.CPUs = strings.TrimSpace(string(r.file("cpuset", "cpuset.effective_cpus")))
	l.MemoryNodes = strings.TrimSpace(string(r.file("cpuset", "cpuset.effective_mems")))
	l.MemoryMax = r.limit("memory", "memory.limit_in_bytes")
	l.SwapMax = r.limit("memory", "memory.memsw.limit_in_bytes")
	l.Pids = r.limit("pids", "pids.max")
	l.Hugepages = r.hugepages(".limit_in_bytes")
}

// usageV1 takes the statistics of containerd's library, hierarchy by hierarchy:
// it stops at the first file that the kernel lacks.
func (r *reader) usageV1(f *Facts) {
	root := r.tree.mountpoint
	for _, c := range []struct {
		name      string
		subsystem cgroup1.Subsystem
	}{
		{"cpu", cgroup1.NewCpu(root)},
		{"cpuacct", cgroup1.NewCpuacct(root)},
		{"memory", cgroup1.NewMemory(root, cgroup1.OptionalSwap(), cgroup1.IgnoreModules("kmem", "kmem.tcp"))},
		{"pids", cgroup1.NewPids(root)},
		{"blkio", cgroup1.NewBlkio(root)},
	} {
		if r.dir(c.name) == "" {
			continue
		}
		one := func() ([]cgroup1.Subsystem, error) { return []cgroup1.Subsystem{c.subsystem}, nil }
		cg, err := cgroup1.Load(cgroup1.StaticPath(r.paths[c.name]), cgroup1.WithHierarchy(one))
		if err != nil {
			if !errors.Is(err, cgroup1.ErrCgroupDeleted) {
				r.miss(c.name, err)
			}
			continue
		}
		m, err := cg.Stat()
		if err != nil {
			r.miss(c.name, err)
			continue
		}
		fillV1(f, c.name, m)
	}
	f.OOM.Kills = r.killsV1()
}

// killsV1 adds up the kills in the cgroup and below it: v1 counts one in the
// cgroup of the killed process only, whichever limit was hit.
func (r *reader) killsV1() (kills uint64) {
	dir := r.dir("memory")
	if dir == "" {
		return 0
	}
	walk(dir, func(dir string) {
		b, err := os.ReadFile(filepath.Join(dir, "memory.oom_control"))
		if err == nil {
			var counters map[string]uint64
			counters, err = parseFlatKeyed(b)
			kills += counters["oom_kill"]
		}
		r.miss("memory.oom_control", err)
	})
	return kills
}

func fillV1(f *Facts, controller string, m *v1.Metrics) {
	u := &f.Usage
	switch controller {
	case "cpu":
		u.CPUPeriods = m.CPU.Throttling.Periods
		u.CPUThrottled = m.CPU.Throttling.ThrottledPeriods
		u.CPUThrottledTime = m.CPU.Throttling.ThrottledTime
	case "cpuacct":
		u.CPUNanos = m.CPU.Usage.Total
	case "memory":
		u.MemoryBytes, u.MemoryPeak = m.Memory.Usage.Usage, m.Memory.Usage.Max
		u.MemoryWorkingSet = u.MemoryBytes - min(u.MemoryBytes, m.Memory.TotalInactiveFile)
		u.MemoryAnon = m.Memory.TotalRSS
		u.SwapBytes = m.Memory.Swap.Usage - min(m.Memory.Swap.Usage, u.MemoryBytes)
		f.OOM.Limit = m.Memory.Usage.Failcnt
		if o := m.MemoryOomControl; o != nil {
			f.OOM.Under, f.OOM.NoKill = o.UnderOom != 0, o.OomKillDisable != 0
		}
	case "pids":
		u.Pids = m.Pids.Current
	case "blkio":
		if m.Blkio == nil {
			return
		}
		for _, e := range m.Blkio.IoServiceBytesRecursive {
			switch e.Op {
			case "Read":
				u.ReadBytes += e.Value
			case "Write":
				u.WriteBytes += e.Value
			}
		}
	}
}

// pressure reads PSI: of the cgroup on v2, and of the one that runc makes in
// the unified hierarchy of a hybrid machine.
func (r *reader) pressure(f *Facts) {
	cgroup, ok := r.paths["unified"]
	if !ok || r.tree.unified == "" {
		return
	}
	for _, what := range []string{"cpu", "memory", "io"} {
		b, err := os.ReadFile(r.tree.unified + cgroup + "/" + what + ".pressure")
		if err != nil {
			r.miss(what+".pressure", err)
			continue
		}
		p, err := parsePressure(b)
		if err != nil {
			r.miss(what+".pressure", err)
			continue
		}
		if f.Pressure == nil {
			f.Pressure = map[string]Pressure{}
		}
		f.Pressure[what] = p
	}
}
