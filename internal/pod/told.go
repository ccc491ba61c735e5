package pod

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Told is what Status goes on from: the status that this daemon told last, or in its
// first turn what an earlier one told the API server; with the conditions of others
// (readiness gates are open or closed by them) as the API server has them.
func Told(d Desired, before corev1.PodStatus) corev1.PodStatus {
	if static(d.Pod) {
		return before // the API server has a copy only, under another UID
	}
	api := &d.Pod.Status
	if before.Phase == "" && api.StartTime != nil { // which only a node writes
		return *api
	}
	mine := before.Conditions
	if before.Phase == "" {
		mine = api.Conditions
	}
	var all []corev1.PodCondition
	for _, c := range api.Conditions {
		if !slices.Contains(own, c.Type) {
			all = append(all, c)
		}
	}
	for _, c := range mine {
		if slices.Contains(own, c.Type) {
			all = append(all, c)
		}
	}
	before.Conditions = all
	return before
}
