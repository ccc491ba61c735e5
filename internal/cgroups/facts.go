package cgroups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"
)

// Facts are what the kernel has for one cgroup, read at one time. A pointer
// that is nil and a map that is empty mean that the kernel has no such thing;
// for a limit, nil is no limit.
type Facts struct {
	Mode      string              `json:"mode"` // v1, hybrid or v2
	Paths     map[string]string   `json:"paths"`
	Limits    Limits              `json:"limits"`
	Usage     Usage               `json:"usage"`
	Devices   []DeviceUsage       `json:"devices,omitempty"`
	OOM       OOM                 `json:"oom"`
	Pressure  map[string]Pressure `json:"pressure,omitempty"` // by cpu, memory, io
	Processes []Process           `json:"processes"`
	// Missed are files that could not be read or understood.
	Missed []string `json:"missed,omitempty"`
}

// Limits are the control files' values.
type Limits struct {
	CPUShares   *uint64 `json:"cpuShares,omitempty"` // v1
	CPUWeight   *uint64 `json:"cpuWeight,omitempty"` // v2
	CPUQuota    *uint64 `json:"cpuQuotaMicros,omitempty"`
	CPUPeriod   *uint64 `json:"cpuPeriodMicros,omitempty"`
	CPUs        string  `json:"cpus,omitempty"` // the list in force
	MemoryNodes string  `json:"memoryNodes,omitempty"`

	MemoryMin  *uint64 `json:"memoryMinBytes,omitempty"`
	MemoryLow  *uint64 `json:"memoryLowBytes,omitempty"`
	MemoryHigh *uint64 `json:"memoryHighBytes,omitempty"`
	MemoryMax  *uint64 `json:"memoryMaxBytes,omitempty"`
	// SwapMax limits swap alone on v2, memory and swap together on v1.
	SwapMax  *uint64 `json:"swapMaxBytes,omitempty"`
	OOMGroup *bool   `json:"oomGroup,omitempty"` // v2: an OOM kill ends all processes

	Pids      *uint64            `json:"pidsMax,omitempty"`
	Hugepages map[string]*uint64 `json:"hugepagesMaxBytes,omitempty"` // by page size
}

// Usage is what the cgroup and those below it use.
type Usage struct {
	CPUNanos         uint64 `json:"cpuNanos"` // since the cgroup was made
	CPUUserNanos     uint64 `json:"cpuUserNanos"`
	CPUSystemNanos   uint64 `json:"cpuSystemNanos"`
	CPUPeriods       uint64 `json:"cpuPeriods"`
	CPUThrottled     uint64 `json:"cpuThrottledPeriods"`
	CPUThrottledTime uint64 `json:"cpuThrottledNanos"`

	MemoryBytes uint64 `json:"memoryBytes"` // with page cache
	MemoryPeak  uint64 `json:"memoryPeakBytes"`
	// MemoryWorkingSet is without the page cache that can go at once: kubelet's
	// measure for evictions.
	MemoryWorkingSet uint64 `json:"memoryWorkingSetBytes"`
	MemoryAnon       uint64 `json:"memoryAnonBytes"`
	MemoryFile       uint64 `json:"memoryFileBytes"` // page cache, also in memory file systems
	MemoryMapped     uint64 `json:"memoryMappedBytes"`
	PageFaults       uint64 `json:"pageFaults"`
	MajorPageFaults  uint64 `json:"majorPageFaults"`
	SwapBytes        uint64 `json:"swapBytes"`

	Pids uint64 `json:"pids"`

	ReadBytes  uint64 `json:"readBytes"`
	WriteBytes uint64 `json:"writeBytes"`
}

// DeviceUsage is what went to and came from one block device.
type DeviceUsage struct {
	Device     string `json:"device"` // /dev/sda
	Reads      uint64 `json:"reads"`
	Writes     uint64 `json:"writes"`
	ReadBytes  uint64 `json:"readBytes"`
	WriteBytes uint64 `json:"writeBytes"`
}

// OOM are the cgroup's counters of memory running out.
type OOM struct {
	Kills  uint64 `json:"kills"`            // processes killed in it and below
	Events uint64 `json:"events"`           // times that the limit was hit and nothing was left to reclaim (v2)
	Limit  uint64 `json:"limitHits"`        // times that the limit was hit
	High   uint64 `json:"highHits"`         // times that memory.high throttled it (v2)
	Under  bool   `json:"under,omitempty"`  // v1: it waits for memory right now
	NoKill bool   `json:"noKill,omitempty"` // v1: the OOM killer is off for it
}

// Pressure is the share of time lost waiting for a resource (PSI): averages in
// percent, totals in microseconds.
type Pressure struct {
	Some PressureShare `json:"some"` // at least one task waited
	Full PressureShare `json:"full"` // all of them did
}

// PressureShare is one line of a pressure file.
type PressureShare struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"totalMicros"`
}

// Process is one process of a cgroup.
type Process struct {
	PID   int    `json:"pid"`
	Comm  string `json:"comm"` // chosen by the pod: escape it on a terminal
	State string `json:"state"`
	// Start is in clock ticks since boot: with the pid it names a process for
	// good.
	Start       uint64 `json:"startTicks"`
	OOMScoreAdj int    `json:"oomScoreAdj"`
	OOMScore    int    `json:"oomScore"` // what the OOM killer compares
	// Below is the cgroup under the one asked for, if it is not the same.
	Below string `json:"below,omitempty"`
}

// ContainerFacts reads what the kernel has for a container.
func (t *Tree) ContainerFacts(ctx context.Context, parent, containerID string) (Facts, error) {
	if err := checkContainerID(containerID); err != nil {
		return Facts{}, err
	}
	return t.Facts(ctx, t.ContainerCgroup(parent, containerID))
}

// Facts reads what the kernel has for a cgroup, such as EnsurePod's. It fails
// with os.ErrNotExist if there is none; a file that cannot be read is missed.
func (t *Tree) Facts(ctx context.Context, cgroup string) (Facts, error) {
	return t.factsAt(ctx, t.paths(cgroup), true)
}

// Figures are what a cgroup uses, with the limits of that: Facts without processes, of
// which there may be thousands, CPU and memory nodes, and huge pages. It is what is
// read again and again, of every cgroup. "/" is the machine.
func (t *Tree) Figures(ctx context.Context, cgroup string) (Facts, error) {
	return t.factsAt(ctx, t.paths(cgroup), false)
}

// paths are those of a cgroup in the hierarchies that have it.
func (t *Tree) paths(cgroup string) map[string]string {
	paths := map[string]string{}
	for _, h := range t.hierarchies {
		if !exists(filepath.Join(h.Dir, cgroup)) {
			continue
		}
		if h.Unified {
			paths["unified"] = cgroup
		}
		for _, c := range h.Controllers {
			paths[c] = cgroup
		}
	}
	return paths
}

// PIDFacts reads what the kernel has for the cgroups that a process is in,
// wherever they are.
func (t *Tree) PIDFacts(ctx context.Context, pid int) (Facts, error) {
	file := filepath.Join(t.proc, strconv.Itoa(pid), "cgroup")
	paths, unified, err := cgroups.ParseCgroupFileUnified(file)
	if err != nil {
		return Facts{}, fmt.Errorf("read cgroups of process %d: %w", pid, err)
	}
	if unified != "" {
		paths["unified"] = unified
	}
	return t.factsAt(ctx, paths, true)
}

func (t *Tree) factsAt(ctx context.Context, paths map[string]string, whole bool) (Facts, error) {
	if len(paths) == 0 {
		return Facts{}, fmt.Errorf("read cgroup: %w", os.ErrNotExist)
	}
	if err := ctx.Err(); err != nil {
		return Facts{}, err
	}
	f := Facts{Mode: t.modeName(), Paths: paths}
	buf := t.buffers.Get().(*[maxFile]byte)
	defer t.buffers.Put(buf)
	r := &reader{tree: t, paths: paths, whole: whole, buf: buf[:]}
	if t.V2() {
		r.limitsV2(&f.Limits)
		r.usageV2(&f)
	} else {
		r.limitsV1(&f.Limits)
		r.usageV1(&f)
	}
	r.pressure(&f)
	if whole {
		r.processes(ctx, &f)
	}
	f.Missed = r.missed
	return f, nil
}

func (t *Tree) modeName() string {
	switch t.mode {
	case cgroups.Unified:
		return "v2"
	case cgroups.Hybrid:
		return "hybrid"
	}
	return "v1"
}

// reader reads the files of one cgroup and notes which it could not.
type reader struct {
	tree   *Tree
	paths  map[string]string // as Facts.Paths
	whole  bool              // also what only an inspection shows
	missed []string
	buf    []byte // of file
}

// dir is the cgroup's directory for a controller, or "".
func (r *reader) dir(controller string) string {
	key := controller
	if r.tree.V2() {
		key = "unified"
	}
	cgroup, ok := r.paths[key]
	if !ok {
		return ""
	}
	return r.tree.dir(controller, cgroup)
}

func (r *reader) miss(name string, err error) {
	if err == nil || errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP) {
		return
	}
	r.missed = append(r.missed, fmt.Sprintf("%s: %v", name, err))
}

// limit reads a single value; nil for none and for no file.
func (r *reader) limit(controller, name string) *uint64 {
	b := r.file(controller, name)
	if b == nil {
		return nil
	}
	v, err := parseLimit(b)
	r.miss(name, err)
	return v
}

func (r *reader) hugepages(suffix string) map[string]*uint64 {
	var out map[string]*uint64
	for _, size := range r.tree.pageSizes {
		b := r.file("hugetlb", "hugetlb."+size+suffix)
		if b == nil {
			continue
		}
		v, err := parseLimit(b)
		r.miss("hugetlb."+size+suffix, err)
		if out == nil {
			out = map[string]*uint64{}
		}
		out[size] = v
	}
	return out
}

// processes reads every process of the cgroup. On v1 the hierarchies may
// disagree; a process counts where it is in any of them.
func (r *reader) processes(ctx context.Context, f *Facts) {
	below := map[int]string{}
	for _, h := range r.tree.hierarchies {
		cgroup, ok := r.paths["unified"]
		if !h.Unified {
			ok = false
			for _, c := range h.Controllers {
				if cgroup, ok = r.paths[c]; ok {
					break
				}
			}
		}
		if !ok || cgroup == "/" {
			continue // the root's processes are the machine's
		}
		root := filepath.Join(h.Dir, cgroup)
		walk(root, func(dir string) {
			b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			if err == nil {
				var pids []int
				pids, err = parsePIDs(b)
				for _, pid := range pids {
					below[pid] = dir[len(root):]
				}
			}
			r.miss("cgroup.procs", err)
		})
	}
	f.Processes = []Process{}
	for pid, where := range below {
		if ctx.Err() != nil {
			r.miss("processes", ctx.Err())
			break
		}
		if p, ok := readProcess(r.tree.proc, pid); ok {
			p.Below = where
			f.Processes = append(f.Processes, p)
		}
	}
	slices.SortFunc(f.Processes, func(a, b Process) int { return a.PID - b.PID })
}

// readProcess reads one process; false if it has ended.
func readProcess(proc string, pid int) (Process, bool) {
	dir := filepath.Join(proc, strconv.Itoa(pid))
	b, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return Process{}, false
	}
	s, err := parseProcStat(b)
	if err != nil {
		return Process{}, false
	}
	adj, err := readInt(filepath.Join(dir, "oom_score_adj"))
	if err != nil {
		return Process{}, false
	}
	score, err := readInt(filepath.Join(dir, "oom_score"))
	if err != nil {
		return Process{}, false
	}
	return Process{PID: pid, Comm: s.comm, State: s.state, Start: s.start, OOMScoreAdj: adj, OOMScore: score}, true
}
