package pod

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-helpers/resource"
)

// Resources are the limits of one cgroup: a container's, a pod's, or the
// node's. A nil pointer, a zero Pids and a missing page size mean no limit.
type Resources struct {
	CPUMilli  int64  `json:"cpuMilli"`  // CPU request in millicores
	CPUShares uint64 `json:"cpuShares"` // cgroup v1
	CPUWeight uint64 `json:"cpuWeight"` // cgroup v2, from the shares

	CPUQuota  *int64 `json:"cpuQuota,omitempty"`  // microseconds a period
	CPUPeriod uint64 `json:"cpuPeriod,omitempty"` // microseconds

	Memory *int64 `json:"memory,omitempty"` // bytes
	// MemorySwap is a container's limit of memory and swap together, in bytes.
	// It equals Memory: a container with a limit does not swap (kubelet's
	// NoSwap). Only for kernels that account swap.
	MemorySwap *int64 `json:"memorySwap,omitempty"`

	Pids int64 `json:"pids,omitempty"`

	// HugepageLimits are bytes by page size as the kernel's files name it
	// ("2MB", "1GB").
	HugepageLimits map[string]uint64 `json:"hugepageLimits,omitempty"`

	// Unified are files of cgroup v2 that have no field of their own; nothing
	// of them exists on v1, where an OCI runtime refuses to start a container
	// that has any.
	Unified map[string]string `json:"unified,omitempty"`
}

// Limits are the node's choices that the formulas depend on. The zero value is
// kubelet's default.
type Limits struct {
	PodPids       int64    // podPidsLimit; zero or less: none
	CPUPeriod     uint64   // cpuCFSQuotaPeriod in microseconds; 0: 100000
	NoCPUQuota    bool     // cpuCFSQuota: false
	SingleOOMKill bool     // singleProcessOOMKill: true
	PageSizes     []string // the kernel's huge page sizes, each limited to 0 unless asked for
}

// PodResources returns the limits of a pod's cgroup with kubelet's defaults.
func PodResources(p *corev1.Pod, podPidsLimit int64) Resources {
	return Limits{PodPids: podPidsLimit}.Pod(p)
}

// ContainerResources returns the limits of a container with kubelet's defaults.
func ContainerResources(p *corev1.Pod, c *corev1.Container) Resources {
	return Limits{}.Container(p, c)
}

// Pod returns the limits of a pod's cgroup (kubelet, ResourceConfigForPod):
// shares from the sum of requests, where init containers count by their
// maximum and the overhead is added; a quota and a memory limit only when every
// container has one, or the pod itself.
func (l Limits) Pod(p *corev1.Pod) Resources {
	requests := resource.PodRequests(p, resource.PodResourcesOptions{})
	limits := resource.PodLimits(p, resource.PodResourcesOptions{})

	class := QOSClass(p)
	milli := requests.Cpu().MilliValue()
	if class == corev1.PodQOSBestEffort {
		milli = 0 // an overhead alone makes nobody more than best effort
	}
	r := l.cpu(milli, 0)
	if class != corev1.PodQOSBestEffort {
		if limited(p, corev1.ResourceCPU) {
			r = l.cpu(milli, limits.Cpu().MilliValue())
		}
		if limited(p, corev1.ResourceMemory) {
			r.Memory = memory(limits.Memory().Value())
		}
	}
	r.Pids = max(0, l.PodPids)
	r.HugepageLimits = l.hugepages(requests)
	return r
}

// Container returns the limits of one container (kubelet,
// generateLinuxContainerResources): a limit without a request is the request,
// and without a limit of its own a container has the pod's.
func (l Limits) Container(p *corev1.Pod, c *corev1.Container) Resources {
	cpuLimit := *c.Resources.Limits.Cpu()
	memLimit := *c.Resources.Limits.Memory()
	pages := []corev1.ResourceList{c.Resources.Limits}
	if resource.IsPodLevelResourcesSet(p) {
		if cpuLimit.IsZero() {
			cpuLimit = *p.Spec.Resources.Limits.Cpu()
		}
		if memLimit.IsZero() {
			memLimit = *p.Spec.Resources.Limits.Memory()
		}
		pages = []corev1.ResourceList{p.Spec.Resources.Limits, c.Resources.Limits}
	}
	request, asked := c.Resources.Requests[corev1.ResourceCPU]
	if !asked {
		request = cpuLimit
	}
	r := l.cpu(request.MilliValue(), cpuLimit.MilliValue())
	r.Memory = memory(memLimit.Value())
	r.MemorySwap = memory(memLimit.Value())
	r.HugepageLimits = l.hugepages(pages...)
	if !l.SingleOOMKill {
		// One process of a container killed by the kernel is the whole of it.
		r.Unified = map[string]string{"memory.oom.group": "1"}
	}
	return r
}

// NodeResources returns the limits of the cgroup of all pods from what the node
// can give to them: shares for its CPU, its memory, "pid", and huge pages
// (kubelet, getCgroupConfig). An empty list limits nothing and has the shares
// of no CPU at all, so give it the capacity at least.
func NodeResources(list corev1.ResourceList) Resources {
	r := Limits{}.cpu(list.Cpu().MilliValue(), 0)
	r.Memory = memory(list.Memory().Value())
	if q, ok := list["pid"]; ok {
		r.Pids = max(0, q.Value())
	}
	r.HugepageLimits = Limits{}.hugepages(list)
	return r
}

// BurstableResources returns the limits of the cgroup of all burstable pods:
// shares for the sum of their requests in millicores.
func BurstableResources(milli int64) Resources { return Limits{}.cpu(milli, 0) }

// BestEffortResources returns the limits of the cgroup of all best-effort
// pods: the smallest shares there are.
func BestEffortResources() Resources { return Limits{}.cpu(0, 0) }

func (l Limits) cpu(request, limit int64) Resources {
	shares := CPUShares(request)
	r := Resources{CPUMilli: max(0, request), CPUShares: shares, CPUWeight: CPUWeight(shares)}
	if l.NoCPUQuota {
		return r
	}
	period := l.CPUPeriod
	if period == 0 {
		period = DefaultCPUPeriod
	}
	if r.CPUQuota = CPUQuota(limit, period); r.CPUQuota != nil {
		r.CPUPeriod = period
	}
	return r
}

func memory(limit int64) *int64 {
	if limit <= 0 {
		return nil
	}
	return &limit
}

// limited tells whether a pod's resource has a limit: its own, or one of every
// container, init containers too.
func limited(p *corev1.Pod, name corev1.ResourceName) bool {
	if r := p.Spec.Resources; r != nil {
		if q, ok := r.Limits[name]; ok && !q.IsZero() {
			return true
		}
	}
	for _, cs := range [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers} {
		for i := range cs {
			if q, ok := cs[i].Resources.Limits[name]; !ok || q.IsZero() {
				return false
			}
		}
	}
	return true
}

// hugepages returns the limit of each page size of the kernel (0 unless asked
// for) and of each one that a list asks for; a later list wins.
func (l Limits) hugepages(lists ...corev1.ResourceList) map[string]uint64 {
	if len(l.PageSizes) == 0 && !hasHugepages(lists) {
		return nil
	}
	out := map[string]uint64{}
	for _, size := range l.PageSizes {
		out[size] = 0
	}
	for _, list := range lists {
		asked := map[string]uint64{} // one size may have two names: 2Mi and 2048Ki
		for name, q := range list {
			if size, ok := hugepageSize(name); ok {
				asked[size] += uint64(max(0, q.Value()))
			}
		}
		maps.Copy(out, asked)
	}
	return out
}

func hasHugepages(lists []corev1.ResourceList) bool {
	for _, list := range lists {
		for name := range list {
			if _, ok := hugepageSize(name); ok {
				return true
			}
		}
	}
	return false
}

// hugepageSize turns a resource name (hugepages-2Mi) into the size as the
// kernel's files name it (2MB).
func hugepageSize(name corev1.ResourceName) (string, bool) {
	rest, ok := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix)
	if !ok {
		return "", false
	}
	q, err := quantity.ParseQuantity(rest)
	if err != nil || q.Value() <= 0 {
		return "", false
	}
	return PageSizeName(q.Value()), true
}

// PageSizeName names a huge page size in bytes as the kernel's hugetlb files
// do: 2097152 is "2MB".
func PageSizeName(bytes int64) string {
	units := []string{"B", "KB", "MB", "GB", "TB", "PB"}
	i := 0
	for bytes > 0 && bytes%1024 == 0 && i < len(units)-1 {
		bytes /= 1024
		i++
	}
	return strconv.FormatInt(bytes, 10) + units[i]
}

// UnifiedFiles returns what an OCI spec's resources.unified must hold on
// cgroup v2, so that every OCI runtime does the same: cpu.weight, the other
// files of r.Unified, and memory.swap.max where the kernel accounts swap.
func (r Resources) UnifiedFiles(swap bool) map[string]string {
	files := map[string]string{"cpu.weight": strconv.FormatUint(r.CPUWeight, 10)}
	maps.Copy(files, r.Unified)
	if swap {
		files["memory.swap.max"] = "0"
	}
	return files
}

// PageSizes returns the page sizes that r limits, sorted.
func (r Resources) PageSizes() []string {
	return slices.Sorted(maps.Keys(r.HugepageLimits))
}
