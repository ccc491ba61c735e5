package cgroups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/cgroups/v3"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// Drivers: who makes a cgroup.
const (
	Cgroupfs = "cgroupfs" // this process, with mkdir
	Systemd  = "systemd"  // systemd, as slices, over D-Bus
)

// Config says where the tree is and how it is made.
type Config struct {
	// Mountpoint is where the cgroup file systems are; /sys/fs/cgroup if empty.
	Mountpoint string
	// Root is the cgroup below which kubepods stands, as kubelet's cgroupRoot;
	// "/" if empty. It is made where it is missing.
	Root string
	// Driver is Cgroupfs or Systemd; empty takes Systemd where PID 1 is systemd
	// and the hierarchy is unified.
	Driver string
	// OOMGroup says that every container was made with memory.oom.group 1, which
	// systemd then takes away and Run puts back (see keepOOMGroup).
	OOMGroup bool
	// Require are the controllers without which EnsureNode fails; nil means
	// cpu, cpuset, memory and pids, and cpuacct on v1.
	Require []string
	// Proc is the proc file system; /proc if empty.
	Proc string
	// HugepagesDir lists the huge page sizes; /sys/kernel/mm/hugepages if empty.
	HugepagesDir string
	// RestoreEvery is how often Run looks at every limit, although the kernel
	// tells it of changes; 1 min if zero.
	RestoreEvery time.Duration
	// OnChange is told of each foreign change that Run found, after it was
	// put right or could not be. May be nil; must not block.
	OnChange func(Change)
	// Kernel is the running kernel if nil.
	Kernel Kernel
	// Dial connects to systemd; its system bus if nil.
	Dial func(context.Context) (Units, error)
}

// Tree is the node's cgroups.
type Tree struct {
	mountpoint, root, proc string
	driver                 string
	mode                   cgroups.CGMode
	require                []string
	pageSizes              []string
	hierarchies            []Hierarchy
	unified                string // directory of the unified hierarchy, or ""
	kernel                 Kernel
	systemd                *systemd
	oomGroup               bool // containers' is kept
	restoreEvery           time.Duration
	onChange               func(Change)

	buffers sync.Pool // of *[maxFile]byte, for who reads many files

	foreign atomic.Uint64

	mu        sync.Mutex
	node      *pod.Resources // what EnsureNode was told, or nil
	enabled   []string       // controllers of v2 that are enabled down the tree
	pods      map[types.UID]*podCgroup
	burstable int64 // millicores that the burstable class has now
	watch     *watch

	classMu sync.Mutex // held while the shares of the burstable class are written
}

// podCgroup is what was last asked for one pod.
type podCgroup struct {
	mu       sync.Mutex // held by the one call that changes the pod's cgroup
	path     string
	milli    int64 // CPU request that counts for the burstable class
	settings []setting
	ensured  bool // false: found in the tree, not yet asked for
	gone     bool // removed: nobody may write any more
}

// New finds out what the machine has. It changes nothing.
func New(c Config) (*Tree, error) {
	t := &Tree{
		mountpoint:   or(c.Mountpoint, "/sys/fs/cgroup"),
		root:         path.Clean("/" + c.Root),
		proc:         or(c.Proc, "/proc"),
		driver:       c.Driver,
		require:      c.Require,
		kernel:       c.Kernel,
		restoreEvery: c.RestoreEvery,
		onChange:     c.OnChange,
		pods:         map[types.UID]*podCgroup{},
		buffers:      sync.Pool{New: func() any { return new([maxFile]byte) }},
	}
	if t.kernel == nil {
		t.kernel = linux{}
	}
	if t.restoreEvery <= 0 {
		t.restoreEvery = time.Minute
	}
	if err := t.detect(); err != nil {
		return nil, err
	}
	switch t.driver {
	case "":
		t.driver = Cgroupfs
		if t.mode == cgroups.Unified && pid1IsSystemd(t.proc) {
			t.driver = Systemd
		}
	case Cgroupfs, Systemd:
	default:
		return nil, fmt.Errorf("cgroup driver %q is neither %s nor %s", t.driver, Cgroupfs, Systemd)
	}
	if t.driver == Systemd {
		t.systemd = newSystemd(c.Dial)
		t.oomGroup = c.OOMGroup && t.V2()
	}
	if t.require == nil {
		t.require = []string{"cpu", "cpuset", "memory", "pids"}
		if t.mode != cgroups.Unified {
			t.require = append(t.require, "cpuacct")
		}
	}
	t.pageSizes = readPageSizes(or(c.HugepagesDir, "/sys/kernel/mm/hugepages"))
	return t, nil
}

// detect finds the hierarchies. The library's own Mode looks at
// /sys/fs/cgroup only, and once in a process.
func (t *Tree) detect() error {
	hs, err := t.kernel.Hierarchies(t.mountpoint)
	if err != nil {
		return err
	}
	v1 := false
	for _, h := range hs {
		switch {
		case h.Unified && h.Dir == t.mountpoint:
			t.hierarchies, t.unified, t.mode = []Hierarchy{h}, h.Dir, cgroups.Unified
			return nil
		case h.Unified:
			t.unified = h.Dir
		default:
			v1 = true
		}
	}
	if !v1 {
		return fmt.Errorf("no cgroup hierarchy is mounted at or below %s", t.mountpoint)
	}
	t.hierarchies, t.mode = hs, cgroups.Legacy
	if t.unified != "" {
		t.mode = cgroups.Hybrid
	}
	return nil
}

// Mode is the library's name for the machine's cgroups: Legacy (v1), Hybrid,
// in which the controllers are v1's, or Unified (v2).
func (t *Tree) Mode() cgroups.CGMode { return t.mode }

// V2 tells whether the controllers are on the unified hierarchy: then an OCI
// spec has resources.unified, and nothing of it otherwise.
func (t *Tree) V2() bool { return t.mode == cgroups.Unified }

// Driver is Cgroupfs or Systemd.
func (t *Tree) Driver() string { return t.driver }

// PageSizes are the kernel's huge page sizes as its files name them ("2MB").
func (t *Tree) PageSizes() []string { return slices.Clone(t.pageSizes) }

// Hugetlb tells whether the kernel can limit huge pages where the controllers
// are.
func (t *Tree) Hugetlb() bool { return len(t.pageSizes) > 0 && t.hasController("hugetlb") }

// Swap tells whether the kernel can limit a cgroup's swap.
func (t *Tree) Swap() bool {
	if !t.V2() {
		dir := t.dir("memory", "/")
		return dir != "" && exists(filepath.Join(dir, "memory.memsw.limit_in_bytes"))
	}
	// The root has no such file, so ask the cgroup of all pods, or the own one.
	if kubepods := filepath.Join(t.unified, t.kubepods()); exists(kubepods) {
		return exists(filepath.Join(kubepods, "memory.swap.max"))
	}
	_, own, err := cgroups.ParseCgroupFileUnified(filepath.Join(t.proc, "self", "cgroup"))
	return err == nil && exists(filepath.Join(t.unified, own, "memory.swap.max"))
}

// missing returns the required controllers that the machine has not.
func (t *Tree) missing() []string {
	var out []string
	for _, c := range t.require {
		if !t.hasController(c) {
			out = append(out, c)
		}
	}
	return out
}

func (t *Tree) hasController(name string) bool {
	if t.V2() {
		return slices.Contains(t.rootControllers(), name)
	}
	return slices.ContainsFunc(t.hierarchies, func(h Hierarchy) bool { return h.has(name) })
}

func (t *Tree) rootControllers() []string {
	b, err := os.ReadFile(filepath.Join(t.unified, "cgroup.controllers"))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b))
}

// dir is the directory of a cgroup for one controller, or "" where the machine
// has not got it.
func (t *Tree) dir(controller, cgroup string) string {
	if t.V2() {
		return filepath.Join(t.unified, cgroup)
	}
	for _, h := range t.hierarchies {
		if h.has(controller) {
			return filepath.Join(h.Dir, cgroup)
		}
	}
	return ""
}

func pid1IsSystemd(proc string) bool {
	b, err := os.ReadFile(filepath.Join(proc, "1", "comm"))
	return err == nil && strings.TrimSpace(string(b)) == "systemd"
}

func readPageSizes(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // a kernel without huge pages
	}
	var out []string
	for _, e := range entries {
		if size, ok := parsePageSize(e.Name()); ok {
			out = append(out, size)
		}
	}
	return out
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return !errors.Is(err, os.ErrNotExist)
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
