package pod

import (
	corev1 "k8s.io/api/core/v1"
)

// QOSClass returns a pod's quality of service class as kubelet computes it
// (pkg/apis/core/v1/helper/qos): Guaranteed when every container has limits
// for CPU and memory and its requests equal them, BestEffort when nobody asks
// for either, Burstable otherwise. Pod-level resources stand in for the
// containers' where they are set. Ephemeral containers do not count.
//
// It reads the spec only: status.qosClass of a manifest is no fact.
func QOSClass(p *corev1.Pod) corev1.PodQOSClass {
	requests, limits := newQOSSum(), newQOSSum()
	everyLimit := true
	if r := p.Spec.Resources; r != nil {
		requests.add(r.Requests)
		everyLimit = limits.add(r.Limits) || len(r.Limits) == 0
	} else {
		for _, cs := range [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers} {
			for i := range cs {
				requests.add(cs[i].Resources.Requests)
				if !limits.add(cs[i].Resources.Limits) {
					everyLimit = false
				}
			}
		}
	}
	if len(requests) == 0 && len(limits) == 0 {
		return corev1.PodQOSBestEffort
	}
	if everyLimit && len(requests) == len(limits) && requests.within(limits) {
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

// qosSum is the sum of CPU and memory over containers; a resource that nobody
// named with more than zero is absent.
type qosSum corev1.ResourceList

func newQOSSum() qosSum { return qosSum{} }

// add adds a list and tells whether it named both CPU and memory.
func (s qosSum) add(list corev1.ResourceList) (both bool) {
	both = true
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		q, ok := list[name]
		if !ok || q.Sign() <= 0 {
			both = false
			continue
		}
		sum := s[name]
		sum.Add(q)
		s[name] = sum
	}
	return both
}

// within tells whether each sum of s has an equal one in limits.
func (s qosSum) within(limits qosSum) bool {
	for name, q := range s {
		if limit, ok := limits[name]; !ok || limit.Cmp(q) != 0 {
			return false
		}
	}
	return true
}
