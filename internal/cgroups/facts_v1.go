package cgroups

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
)

func (r *reader) limitsV1(l *Limits) {
	l.CPUShares = r.limit("cpu", "cpu.shares")
	l.CPUQuota = r.limit("cpu", "cpu.cfs_quota_us")
	l.CPUPeriod = r.limit("cpu", "cpu.cfs_period_us")
	l.MemoryMax = r.limit("memory", "memory.limit_in_bytes")
	l.SwapMax = r.limit("memory", "memory.memsw.limit_in_bytes")
	l.Pids = r.limit("pids", "pids.max")
	if r.whole {
		l.CPUs = strings.TrimSpace(string(r.file("cpuset", "cpuset.effective_cpus")))
		l.MemoryNodes = strings.TrimSpace(string(r.file("cpuset", "cpuset.effective_mems")))
		l.Hugepages = r.hugepages(".limit_in_bytes")
	}
}

// userTick is the unit of cpuacct.stat in nanoseconds: USER_HZ is 100 everywhere.
const userTick = 10_000_000

func (r *reader) usageV1(f *Facts) {
	u := &f.Usage
	r.keyed("cpu", "cpu.stat", func(key []byte, v uint64) {
		switch string(key) {
		case "nr_periods":
			u.CPUPeriods = v
		case "nr_throttled":
			u.CPUThrottled = v
		case "throttled_time":
			u.CPUThrottledTime = v
		}
	})
	u.CPUNanos = r.number("cpuacct", "cpuacct.usage")
	r.keyed("cpuacct", "cpuacct.stat", func(key []byte, v uint64) {
		switch string(key) {
		case "user":
			u.CPUUserNanos = v * userTick
		case "system":
			u.CPUSystemNanos = v * userTick
		}
	})
	r.memoryV1(f)
	u.Pids = r.number("pids", "pids.current")
	r.blkio(f, "blkio.throttle.io_service_bytes", func(d *DeviceUsage, write bool, v uint64) {
		if write {
			d.WriteBytes += v
			u.WriteBytes += v
		} else {
			d.ReadBytes += v
			u.ReadBytes += v
		}
	})
	r.blkio(f, "blkio.throttle.io_serviced", func(d *DeviceUsage, write bool, v uint64) {
		if write {
			d.Writes += v
		} else {
			d.Reads += v
		}
	})
}

func (r *reader) memoryV1(f *Facts) {
	u, inactive := &f.Usage, uint64(0)
	u.MemoryBytes, u.MemoryPeak = r.number("memory", "memory.usage_in_bytes"), r.number("memory", "memory.max_usage_in_bytes")
	r.keyed("memory", "memory.stat", func(key []byte, v uint64) {
		switch string(key) {
		case "total_inactive_file":
			inactive = v
		case "total_rss":
			u.MemoryAnon = v
		case "total_cache":
			u.MemoryFile = v
		case "total_mapped_file":
			u.MemoryMapped = v
		case "total_pgfault":
			u.PageFaults = v
		case "total_pgmajfault":
			u.MajorPageFaults = v
		}
	})
	u.MemoryWorkingSet = u.MemoryBytes - min(u.MemoryBytes, inactive)
	both := r.number("memory", "memory.memsw.usage_in_bytes")
	u.SwapBytes = both - min(both, u.MemoryBytes)
	f.OOM.Limit = r.number("memory", "memory.failcnt")
	own := uint64(0)
	r.keyed("memory", "memory.oom_control", func(key []byte, v uint64) {
		switch string(key) {
		case "under_oom":
			f.OOM.Under = v != 0
		case "oom_kill_disable":
			f.OOM.NoKill = v != 0
		case "oom_kill":
			own = v
		}
	})
	f.OOM.Kills = own + r.killsBelowV1()
}

// killsBelowV1 adds up the kills below the cgroup: v1 counts one in the cgroup of the
// killed process only, whichever limit was hit.
func (r *reader) killsBelowV1() (kills uint64) {
	dir := r.dir("memory")
	if dir == "" || leaf(dir) {
		return 0
	}
	for _, child := range children(dir) {
		below := &reader{tree: r.tree, paths: map[string]string{"memory": r.paths["memory"] + "/" + child}, buf: r.buf}
		below.keyed("memory", "memory.oom_control", func(key []byte, v uint64) {
			if string(key) == "oom_kill" {
				kills += v
			}
		})
		kills += below.killsBelowV1()
		r.missed = append(r.missed, below.missed...)
	}
	return kills
}

// blkio reads a file with lines as "8:0 Read 4096", of the cgroup and those below it
// where the kernel adds them up.
func (r *reader) blkio(f *Facts, name string, add func(d *DeviceUsage, write bool, v uint64)) {
	b := r.file("blkio", name+"_recursive")
	if b == nil {
		b = r.file("blkio", name)
	}
	for line := range bytes.Lines(b) {
		fields := bytes.Fields(line)
		if len(fields) != 3 {
			continue // the sum
		}
		read, write := string(fields[1]) == "Read", string(fields[1]) == "Write"
		if v, rest := digits(fields[2]); (read || write) && len(rest) == 0 {
			add(f.device(string(fields[0])), write, v)
		}
	}
}

// device is the entry of the device of that number.
func (f *Facts) device(number string) *DeviceUsage {
	name := deviceName(number)
	for i := range f.Devices {
		if f.Devices[i].Device == name {
			return &f.Devices[i]
		}
	}
	f.Devices = append(f.Devices, DeviceUsage{Device: name})
	return &f.Devices[len(f.Devices)-1]
}

// deviceName is the path of a block device; its number where it has none.
func deviceName(number string) string {
	link, err := os.Readlink("/sys/dev/block/" + number)
	if err != nil {
		return number
	}
	return "/dev/" + filepath.Base(link)
}

// pressure reads PSI: of the cgroup on v2, and of the one that runc makes in
// the unified hierarchy of a hybrid machine.
func (r *reader) pressure(f *Facts) {
	cgroup, ok := r.paths["unified"]
	if !ok || r.tree.unified == "" {
		return
	}
	for _, what := range []string{"cpu", "memory", "io"} {
		b, err := r.read(r.tree.unified + cgroup + "/" + what + ".pressure")
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
