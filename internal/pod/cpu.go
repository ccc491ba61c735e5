package pod

import "math"

// The kernel's bounds of CPU shares (cgroup v1), weight (v2) and bandwidth.
const (
	MinShares = 2      // MIN_SHARES, kernel/sched
	MaxShares = 262144 // MAX_SHARES
	MaxWeight = 10000  // CGROUP_WEIGHT_MAX

	// DefaultCPUPeriod is the length of a bandwidth period in microseconds.
	DefaultCPUPeriod = 100000
	// minQuota is the shortest quota the kernel takes, in microseconds.
	minQuota = 1000
	// maxQuota is the longest one (MAX_BW, 2^44-1): more is EINVAL, and no
	// machine has 176 million CPUs.
	maxQuota = 1<<44 - 1
)

// CPUShares turns a CPU request in millicores into cpu.shares:
// milli*1024/1000, at least 2, at most 262144 (kubelet, MilliCPUToShares).
func CPUShares(milli int64) uint64 {
	if milli >= MaxShares*1000/1024 { // also where the product would overflow
		return MaxShares
	}
	return max(MinShares, uint64(max(0, milli)*1024/1000))
}

// CPUWeight turns cpu.shares into cpu.weight of cgroup v2 with KEP-2254's
// linear formula 1+((shares-2)*9999)/262142, the one that kubelet uses for its
// own cgroups. Every level of ours uses it, containers too, whatever formula
// the OCI runtime has: docs/design/resources.md says why.
func CPUWeight(shares uint64) uint64 {
	switch {
	case shares <= MinShares:
		return 1
	case shares >= MaxShares:
		return MaxWeight
	}
	return 1 + (shares-2)*9999/262142
}

// CPUQuota turns a CPU limit in millicores into microseconds of CPU time a
// period (in microseconds): milli*period/1000, at least 1000 (kubelet,
// MilliCPUToQuota), at most what the kernel takes. Zero or less is no limit:
// nil.
func CPUQuota(milli int64, period uint64) *int64 {
	if milli <= 0 {
		return nil
	}
	if period == 0 {
		period = DefaultCPUPeriod
	}
	quota := int64(maxQuota)
	if uint64(milli) <= math.MaxInt64/period {
		quota = min(maxQuota, max(minQuota, milli*int64(period)/1000))
	}
	return &quota
}
