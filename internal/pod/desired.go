package pod

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Wish is what is wanted of a pod as a whole.
type Wish string

const (
	// WishRun: run it according to its spec.
	WishRun Wish = "Run"
	// WishAbsent: stop it with grace and remove all that it left.
	WishAbsent Wish = "Absent"
)

// Desired is what the sources want of one pod. The pod is defaulted, validated
// and never changed after it was handed over.
type Desired struct {
	Wish Wish
	// Pod is nil for a pod that is known only from the runtime's records.
	Pod *corev1.Pod
	// Grace overrides the pod's grace period in seconds when not nil.
	Grace *int64
	// Rejected, when not nil, says that the node does not admit the pod: its
	// phase is Failed and nothing of it is started.
	Rejected *Rejection
	// Unbuilt, when not nil, says what the pod asks for that the node does not give
	// it: as long as there is nothing of it, nothing is begun, and its phase is Pending.
	Unbuilt *Rejection
	// Ended, when not nil, says that the node ends the pod before its time: it is
	// stopped, within Grace where that is shorter than its own, its phase is Failed
	// unless it has succeeded, and it is not started again.
	Ended *Ending
}

// Ending is why a node ends a pod before its time, in kubelet's words.
type Ending struct {
	Reason  string
	Message string
	// Grace in seconds bounds the pod's own grace period.
	Grace int64
}

// Rejection is why a node does not admit a pod, in kubelet's words.
type Rejection struct {
	Reason  string
	Message string
}

// unbuilt is why nothing of the pod is begun, or nil. One that an earlier daemon has
// begun goes on.
func (d Desired) unbuilt(o *Observed) *Rejection {
	if d.Unbuilt == nil || d.Rejected != nil || d.Wish != WishRun || !o.RuntimeState.Empty() {
		return nil
	}
	return d.Unbuilt
}

// within bounds a grace period by that of the pod's end, where the node ends it.
func (d Desired) within(grace time.Duration) time.Duration {
	if d.Ended == nil {
		return grace
	}
	return max(min(grace, Seconds(d.Ended.Grace)), leastPodGrace)
}
