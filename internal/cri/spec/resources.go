package spec

import (
	"maps"
	"path"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func setResources(in Input, s *specs.Spec) error {
	if err := checkCgroupsPath(in.CgroupsPath, in.Sandbox.GetLinux().GetCgroupParent()); err != nil {
		return err
	}
	s.Linux.CgroupsPath = in.CgroupsPath
	want := in.Container.GetLinux().GetResources()
	r := &specs.LinuxResources{CPU: cpu(in, want), Memory: memory(in, want)}
	if len(want.GetHugepageLimits()) > 0 && !in.Host.Hugetlb {
		return refuse("huge page limits are set, but this kernel has no hugetlb cgroup controller")
	}
	for _, h := range want.GetHugepageLimits() {
		r.HugepageLimits = append(r.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: h.GetPageSize(), Limit: h.GetLimit()})
	}
	unified, err := unified(in, want)
	if err != nil {
		return err
	}
	r.Unified = unified
	s.Linux.Resources = r
	return nil
}

// checkCgroupsPath refuses a container cgroup that is not below its pod's: its
// processes would escape the pod's limits.
func checkCgroupsPath(p, parent string) error {
	if parent == "" {
		return refuse("the sandbox has no cgroup parent")
	}
	if slice, rest, ok := strings.Cut(p, ":"); ok { // systemd: slice:prefix:name
		prefix, name, ok := strings.Cut(rest, ":")
		if !ok || slice != path.Base(parent) || !strings.HasSuffix(slice, ".slice") ||
			prefix == "" || name == "" || strings.ContainsAny(prefix+name, ":/\x00") {
			return refuse("cgroup %q is not below the pod's slice %q", p, parent)
		}
		return nil
	}
	if p != path.Clean(p) || !path.IsAbs(parent) || !strings.HasPrefix(p, strings.TrimSuffix(path.Clean(parent), "/")+"/") {
		return refuse("cgroup %q is not below the pod's %q", p, parent)
	}
	return nil
}

func cpu(in Input, want *runtimeapi.LinuxContainerResources) *specs.LinuxCPU {
	c := &specs.LinuxCPU{Cpus: want.GetCpusetCpus(), Mems: want.GetCpusetMems()}
	if p := uint64(max(want.GetCpuPeriod(), 0)); p != 0 {
		c.Period = &p
	}
	if q := want.GetCpuQuota(); q != 0 {
		c.Quota = &q
	}
	// On v2 the weight is ours, in unified.
	if sh := uint64(max(want.GetCpuShares(), 0)); sh != 0 && !in.Host.CgroupV2 {
		c.Shares = &sh
	}
	return c
}

func memory(in Input, want *runtimeapi.LinuxContainerResources) *specs.LinuxMemory {
	m := &specs.LinuxMemory{}
	limit, swap := want.GetMemoryLimitInBytes(), want.GetMemorySwapLimitInBytes()
	if limit != 0 {
		m.Limit = &limit
	}
	// The OCI value is memory plus swap: equal means no swap.
	if swap == 0 {
		swap = limit
	}
	if swap != 0 && in.Host.Swap {
		m.Swap = &swap
	}
	return m
}

// unified is what goes straight into cgroup v2 files.
func unified(in Input, want *runtimeapi.LinuxContainerResources) (map[string]string, error) {
	if !in.Host.CgroupV2 {
		return nil, nil
	}
	out := maps.Clone(want.GetUnified())
	for file := range out {
		if strings.ContainsAny(file, "/\x00") || !strings.Contains(file, ".") {
			return nil, refuse("cgroup file %q is not valid", file)
		}
	}
	weight := in.CPUWeight
	if sh := want.GetCpuShares(); weight == 0 && sh > 0 {
		weight = weightOf(uint64(sh))
	}
	if weight != 0 {
		if weight > 10000 {
			return nil, refuse("cpu.weight %d is over 10000", weight)
		}
		if out == nil {
			out = map[string]string{}
		}
		out["cpu.weight"] = strconv.FormatUint(weight, 10)
	}
	return out, nil
}

// weightOf converts CPU shares (2..262144) to cpu.weight (1..10000) by the
// formula of KEP-2254.
func weightOf(shares uint64) uint64 {
	shares = min(max(shares, 2), 262144)
	return 1 + (shares-2)*9999/262142
}
