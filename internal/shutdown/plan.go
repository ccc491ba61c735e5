package shutdown

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"nodeagent/internal/pod"
)

// Group is the pods from a priority on, up to that of the next group, and the time
// that they have.
type Group struct {
	Priority int32
	Grace    time.Duration
}

// systemCritical is the priority from which on a pod is critical.
const systemCritical = 2_000_000_000

// Groups are those that a configuration asks for, the least important first; none: pods
// are not ended. Where there are no priorities, of the whole time the last part is that
// of critical pods.
func Groups(whole, critical time.Duration, byPriority []kubeletv1beta1.ShutdownGracePeriodByPodPriority) []Group {
	var all []Group
	for _, g := range byPriority {
		all = append(all, Group{g.Priority, time.Duration(g.ShutdownGracePeriodSeconds) * time.Second})
	}
	if len(all) == 0 && whole > 0 && critical <= whole {
		all = []Group{{0, whole - critical}, {systemCritical, critical}}
	}
	slices.SortStableFunc(all, func(x, y Group) int { return cmp.Compare(x.Priority, y.Priority) })
	return all
}

// Whole is the time that all groups have together.
func Whole(groups []Group) time.Duration {
	var sum time.Duration
	for _, g := range groups {
		sum += g.Grace
	}
	return sum
}

// Step is the end of a group's pods.
type Step struct {
	Group
	Pods []types.UID
}

// Plan arranges the pods that have not ended into the groups' steps; a group without
// pods has none. A pod of a priority below all groups is in the first.
func Plan(groups []Group, pods []*corev1.Pod) []Step {
	steps := make([]Step, len(groups))
	for i, g := range groups {
		steps[i].Group = g
	}
	for _, p := range pods {
		if len(groups) == 0 || pod.Over(p.Status.Phase) {
			continue
		}
		var priority int32
		if p.Spec.Priority != nil {
			priority = *p.Spec.Priority
		}
		at := len(groups) - 1
		for at > 0 && groups[at].Priority > priority {
			at--
		}
		steps[at].Pods = append(steps[at].Pods, p.UID)
	}
	return slices.DeleteFunc(steps, func(s Step) bool { return len(s.Pods) == 0 })
}

// What a pod is told to have ended for.
const (
	reason  = "Terminated"
	message = "Pod was terminated in response to imminent node shutdown."
)

// ending is why the pods of a group end.
func (g Group) ending() *pod.Ending {
	return &pod.Ending{Reason: reason, Message: message, Grace: int64(g.Grace / time.Second)}
}
