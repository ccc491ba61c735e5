package pod

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
)

// The oom_score_adj of kubelet's classes (pkg/kubelet/qos/policy.go).
const (
	OOMScoreAdjGuaranteed = -997
	OOMScoreAdjBestEffort = 1000
	oomScoreAdjFloor      = 1000 + OOMScoreAdjGuaranteed // of a burstable container
	oomScoreAdjCeiling    = OOMScoreAdjBestEffort - 1
)

const (
	priorityNodeCritical = "system-node-critical"
	// systemCriticalPriority is where the priorities of system classes begin.
	systemCriticalPriority = 2000000000

	annotationSource = "kubernetes.io/config.source"
	annotationMirror = "kubernetes.io/config.mirror"
)

// OOMScoreAdj returns the oom_score_adj of every process of a container:
// -997 for a node-critical or Guaranteed pod, 1000 for BestEffort, and
// 1000-1000*memoryRequest/memoryCapacity within 3..999 for Burstable, so that
// who uses more than its request dies first. With pod-level requests, what the
// containers leave of them is shared out evenly (KEP-2837). A sidecar is never
// killed before the container with the smallest request (KEP-753).
//
// memoryCapacity is the node's memory in bytes; where it is not known (<= 0) a
// burstable container gets 999.
func OOMScoreAdj(p *corev1.Pod, c *corev1.Container, memoryCapacity int64) int {
	if nodeCritical(p) {
		return OOMScoreAdjGuaranteed
	}
	switch QOSClass(p) {
	case corev1.PodQOSGuaranteed:
		return OOMScoreAdjGuaranteed
	case corev1.PodQOSBestEffort:
		return OOMScoreAdjBestEffort
	}
	spare := spareMemory(p)
	request := addSaturating(c.Resources.Requests.Memory().Value(), spare)
	if sidecar(p, c) {
		request = max(request, addSaturating(leastMemory(p.Spec.Containers), spare))
	}
	return min(oomScoreAdjCeiling, max(oomScoreAdjFloor, 1000-permille(request, memoryCapacity)))
}

// permille returns 1000*part/whole within 0..1000 without overflow.
func permille(part, whole int64) int {
	switch {
	case whole <= 0 || part <= 0:
		return 0
	case part >= whole:
		return 1000
	case part > math.MaxInt64/1000: // then whole is large enough for this to be exact to one
		return int(part / (whole / 1000))
	}
	return int(1000 * part / whole)
}

// nodeCritical tells whether a pod is of the class system-node-critical and
// may be: from a file, or with the priority that only admission gives.
func nodeCritical(p *corev1.Pod) bool {
	if p.Spec.PriorityClassName != priorityNodeCritical {
		return false
	}
	source, known := p.Annotations[annotationSource]
	_, mirror := p.Annotations[annotationMirror]
	return known && source != "api" || mirror ||
		p.Spec.Priority != nil && *p.Spec.Priority >= systemCriticalPriority
}

// spareMemory is each container's even share of the pod-level memory request
// that no container asked for.
func spareMemory(p *corev1.Pod) int64 {
	if !resource.IsPodLevelRequestsSet(p) || p.Spec.Resources.Requests.Memory().IsZero() {
		return 0
	}
	n := int64(len(p.Spec.Containers) + len(p.Spec.InitContainers))
	if n == 0 {
		return 0
	}
	asked := resource.AggregateContainerRequests(p, resource.PodResourcesOptions{})
	return (p.Spec.Resources.Requests.Memory().Value() - asked.Memory().Value()) / n
}

// sidecar tells whether c is a restartable init container of p.
func sidecar(p *corev1.Pod, c *corev1.Container) bool {
	if !isSidecar(c) {
		return false
	}
	for i := range p.Spec.InitContainers {
		if p.Spec.InitContainers[i].Name == c.Name {
			return true
		}
	}
	return false
}

func leastMemory(cs []corev1.Container) int64 {
	if len(cs) == 0 {
		return 0
	}
	least := int64(math.MaxInt64)
	for i := range cs {
		least = min(least, cs[i].Resources.Requests.Memory().Value())
	}
	return least
}

func addSaturating(a, b int64) int64 {
	if b > 0 && a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
