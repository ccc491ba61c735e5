package spec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/pkg/cap"
	"github.com/containerd/containerd/v2/pkg/seccomp"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Host are the facts of the node that a spec depends on. They do not change
// while the daemon runs.
type Host struct {
	// CgroupV2 tells that the controllers are on the unified hierarchy.
	CgroupV2 bool
	// CgroupOptions are the super-block options of the unified mount that a
	// second mount of it would strip (nsdelegate, memory_recursiveprot).
	CgroupOptions []string
	// Swap tells that the kernel limits swap; then a container with a memory
	// limit gets no swap on top of it.
	Swap bool
	// Hugetlb tells that the kernel has the hugetlb controller.
	Hugetlb bool
	// Seccomp tells that the kernel has seccomp filters. Without them every
	// container that is not explicitly Unconfined is refused.
	Seccomp bool
	// LackedABIs are second architectures whose programs this kernel is known not
	// to run.
	LackedABIs []specs.Arch
	// Capabilities are those that containers of this node can have
	// ("CAP_CHOWN"); nil means all.
	Capabilities []string
	// OOMScoreAdjMin is the lowest oom_score_adj that this process may give:
	// -1000 with CAP_SYS_RESOURCE, else its own score.
	OOMScoreAdjMin int
	// ThermalPaths are the thermal_throttle directories of the processors,
	// masked since they tell of the neighbours' load.
	ThermalPaths []string
}

// ReadHost reads the facts of this node from /proc and /sys.
func ReadHost() (Host, error) {
	caps, err := grantable()
	if err != nil {
		return Host{}, err
	}
	own, err := cap.Current()
	if err != nil {
		return Host{}, fmt.Errorf("read own capabilities: %w", err)
	}
	h := Host{
		Capabilities:   caps,
		OOMScoreAdjMin: -1000,
		Seccomp:        seccomp.IsEnabled(),
		LackedABIs:     lackedABIs(),
	}
	if !slices.Contains(own, "CAP_SYS_RESOURCE") {
		if h.OOMScoreAdjMin, err = ownOOMScoreAdj(); err != nil {
			return Host{}, err
		}
	}
	if err := h.readCgroups(); err != nil {
		return Host{}, err
	}
	// The pattern is fixed, so that Glob cannot fail.
	h.ThermalPaths, _ = filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")
	return h, nil
}

// grantable are the capabilities that containers here can have. containerd's
// shim starts them, not this process, whose unit leaves it only what it uses
// itself; so what counts is the bounding set of the first process, from which
// containerd has its own: all that the kernel knows, or, where the whole node is
// in a container, what that container may have.
func grantable() ([]string, error) {
	f, err := os.Open("/proc/1/status")
	if err != nil {
		return nil, fmt.Errorf("read the node's capabilities: %w", err)
	}
	defer f.Close()
	sets, err := cap.ParseProcPIDStatus(f)
	if err != nil {
		return nil, fmt.Errorf("read the node's capabilities: %w", err)
	}
	names, _ := cap.FromBitmap(sets[cap.Bounding])
	slices.Sort(names)
	return names, nil
}

func ownOOMScoreAdj() (int, error) {
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0, fmt.Errorf("read own oom_score_adj: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("read own oom_score_adj: %w", err)
	}
	return n, nil
}

const cgroupRoot = "/sys/fs/cgroup"

func (h *Host) readCgroups() error {
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &st); err != nil {
		return fmt.Errorf("look at %s: %w", cgroupRoot, err)
	}
	h.CgroupV2 = st.Type == unix.CGROUP2_SUPER_MAGIC
	if !h.CgroupV2 {
		h.Swap = exists(cgroupRoot + "/memory/memory.memsw.limit_in_bytes")
		h.Hugetlb = exists(cgroupRoot + "/hugetlb")
		return nil
	}
	controllers, err := os.ReadFile(cgroupRoot + "/cgroup.controllers")
	if err != nil {
		return fmt.Errorf("read controllers: %w", err)
	}
	h.Hugetlb = slices.Contains(strings.Fields(string(controllers)), "hugetlb")
	// The root group has no memory.swap.max: ask for that of our own group.
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return fmt.Errorf("read own cgroup: %w", err)
	}
	for line := range strings.Lines(string(own)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			h.Swap = exists(filepath.Join(cgroupRoot, path, "memory.swap.max"))
		}
	}
	h.CgroupOptions, err = cgroupOptions()
	return err
}

func cgroupOptions() ([]string, error) {
	infos, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(cgroupRoot))
	if err != nil {
		return nil, fmt.Errorf("read options of %s: %w", cgroupRoot, err)
	}
	var keep []string
	for _, info := range infos {
		for opt := range strings.SplitSeq(info.VFSOptions, ",") {
			if opt == "nsdelegate" || opt == "memory_recursiveprot" {
				keep = append(keep, opt)
			}
		}
	}
	return keep, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, os.ErrNotExist)
}
