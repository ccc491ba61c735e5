package node

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"nodeagent/internal/node/machine"
	"nodeagent/internal/pod"
)

// Capacity is what the machine has, and how many pods an operator lets onto it.
// storage is the size of the file system of pods; 0: not known.
func Capacity(m machine.Machine, storage int64, maxPods, podsPerCore int32) corev1.ResourceList {
	pods := int64(maxPods)
	if podsPerCore > 0 {
		pods = min(pods, int64(m.CPUs)*int64(podsPerCore))
	}
	all := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewQuantity(int64(m.CPUs), resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(m.Memory, resource.BinarySI),
		corev1.ResourcePods:   *resource.NewQuantity(pods, resource.DecimalSI),
	}
	if storage > 0 {
		all[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(storage, resource.BinarySI)
	}
	for size, n := range m.HugePages {
		name := corev1.ResourceHugePagesPrefix + resource.NewQuantity(size, resource.BinarySI).String()
		all[corev1.ResourceName(name)] = *resource.NewQuantity(size*n, resource.BinarySI)
	}
	return all
}

// Internal is the capacity together with what is limited for all pods but is no
// resource of the API: processes. The cgroup of all pods is made from it, by
// pod.Reserved.Enforced. Where nothing is reserved of them there is no limit.
func Internal(capacity corev1.ResourceList, m machine.Machine, r pod.Reserved) corev1.ResourceList {
	all := capacity.DeepCopy()
	if _, reserved := r.List[pod.ResourcePIDs]; reserved && m.PIDs > 0 {
		all[pod.ResourcePIDs] = *resource.NewQuantity(m.PIDs, resource.DecimalSI)
	}
	return all
}
