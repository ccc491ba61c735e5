package pod

import (
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
}

// Rejection is why a node does not admit a pod, in kubelet's words.
type Rejection struct {
	Reason  string
	Message string
}
