package cgroups

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
	l.MemoryMin = r.limit("memory", "memory.min")
	l.MemoryLow = r.limit("memory", "memory.low")
	l.MemoryHigh = r.limit("memory", "memory.high")
	l.MemoryMax = r.limit("memory", "memory.max")
	l.SwapMax = r.limit("memory", "memory.swap.max")
	if v := r.limit("memory", "memory.oom.group"); v != nil {
		l.OOMGroup = new(*v == 1)
	}
	l.Pids = r.limit("pids", "pids.max")
	if r.whole {
		l.CPUs = strings.TrimSpace(string(r.file("cpuset", "cpuset.cpus.effective")))
		l.MemoryNodes = strings.TrimSpace(string(r.file("cpuset", "cpuset.mems.effective")))
		l.Hugepages = r.hugepages(".max")
	}
}

func (r *reader) usageV2(f *Facts) {
	u := &f.Usage
	r.keyed("cpu", "cpu.stat", func(key []byte, v uint64) {
		switch string(key) {
		case "usage_usec":
			u.CPUNanos = v * 1000
		case "user_usec":
			u.CPUUserNanos = v * 1000
		case "system_usec":
			u.CPUSystemNanos = v * 1000
		case "nr_periods":
			u.CPUPeriods = v
		case "nr_throttled":
			u.CPUThrottled = v
		case "throttled_usec":
			u.CPUThrottledTime = v * 1000
		}
	})
	r.memoryV2(u)
	r.keyed("memory", "memory.events", func(key []byte, v uint64) {
		switch string(key) {
		case "oom_kill":
			f.OOM.Kills = v
		case "oom":
			f.OOM.Events = v
		case "max":
			f.OOM.Limit = v
		case "high":
			f.OOM.High = v
		}
	})
	u.Pids = r.number("pids", "pids.current")
	for line := range bytes.Lines(r.file("io", "io.stat")) {
		f.io(bytes.Fields(line))
	}
}

func (r *reader) memoryV2(u *Usage) {
	inactive := uint64(0)
	r.keyed("memory", "memory.stat", func(key []byte, v uint64) {
		switch string(key) {
		case "anon":
			u.MemoryAnon = v
		case "file":
			u.MemoryFile = v
		case "file_mapped":
			u.MemoryMapped = v
		case "inactive_file":
			inactive = v
		case "pgfault":
			u.PageFaults = v
		case "pgmajfault":
			u.MajorPageFaults = v
		}
	})
	u.MemoryBytes, u.MemoryPeak = r.number("memory", "memory.current"), r.number("memory", "memory.peak")
	u.SwapBytes = r.number("memory", "memory.swap.current")
	if r.paths["unified"] == "/" { // which has none of these
		u.MemoryBytes, u.SwapBytes = u.MemoryAnon+u.MemoryFile, r.swap()
	}
	u.MemoryWorkingSet = u.MemoryBytes - min(u.MemoryBytes, inactive)
}

// io takes a line as "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0".
func (f *Facts) io(fields [][]byte) {
	if len(fields) < 2 {
		return // a device that was never used
	}
	d := f.device(string(fields[0]))
	for _, field := range fields[1:] {
		key, value, _ := bytes.Cut(field, []byte("="))
		v, _ := digits(value)
		switch string(key) {
		case "rbytes":
			d.ReadBytes += v
			f.Usage.ReadBytes += v
		case "wbytes":
			d.WriteBytes += v
			f.Usage.WriteBytes += v
		case "rios":
			d.Reads += v
		case "wios":
			d.Writes += v
		}
	}
}

// swap is what the machine has in swap.
func (r *reader) swap() uint64 {
	b, err := os.ReadFile(filepath.Join(r.tree.proc, "meminfo"))
	if err != nil {
		r.miss("meminfo", err)
		return 0
	}
	kib := map[string]uint64{}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		kib[name], _ = strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 54)
	}
	return (kib["SwapTotal"] - min(kib["SwapTotal"], kib["SwapFree"])) << 10
}
