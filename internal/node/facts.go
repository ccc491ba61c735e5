package node

import (
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/node/machine"
)

// Identity is what an operator makes of the node. It does not change.
type Identity struct {
	Name     string
	Hostname string // the label; Name by default
	// Labels and Taints are of the node's registration; later they belong to
	// whoever administers the cluster.
	Labels        map[string]string
	Taints        []corev1.Taint
	ProviderID    string
	Unschedulable bool // at registration
	// ExternalCloud leaves the addresses, once there are any, to a cloud
	// controller, and registers with the taint that it removes.
	ExternalCloud bool
	// ProvidedIPs is --node-ip as given; a cloud controller reads it.
	ProvidedIPs string
	// ControllerAttach says that the attach/detach controller may attach volumes.
	ControllerAttach bool
	Port             int32  // of the node API
	Version          string // as Version gives it
	MaxImages        int    // how many are listed; negative: maxImages
}

// Facts is what the node is now.
type Facts struct {
	Machine machine.Machine
	// Capacity and Allocatable as Capacity and pod.Reserved give them.
	Capacity, Allocatable corev1.ResourceList
	Addresses             []corev1.NodeAddress
	RuntimeVersion        string // containerd's; "": not known
	Images                []Image
	Handlers              []corev1.NodeRuntimeHandler
	Features              *corev1.NodeFeatures
	Declared              []string // features that the scheduler may count on, sorted
}

// Image is an image on the node.
type Image struct {
	Names []string // with digests first
	Size  int64
}

// Conditions judges the node. It answers from memory; who changes its mind calls
// Node.Wake.
type Conditions interface {
	Conditions() Verdicts
}

// Verdicts is what is known of the node's health. A part that nobody looks at
// is absent, and its condition is Unknown: nobody shall take it for health.
type Verdicts struct {
	// Judged tells that somebody looks whether pods can run at all; NotReady is
	// why they cannot.
	Judged   bool
	NotReady []error
	// Memory, Disk and PIDs tell whether the node is short of them; nil: nobody
	// looks.
	Memory, Disk, PIDs *bool
	// Others are conditions of our own; their times are not read.
	Others []corev1.NodeCondition
}

// Absent names the conditions that nobody looks at.
func (v Verdicts) Absent() []corev1.NodeConditionType {
	var absent []corev1.NodeConditionType
	for _, p := range pressures {
		if p.of(v) == nil {
			absent = append(absent, p.kind)
		}
	}
	if !v.Judged {
		absent = append(absent, corev1.NodeReady)
	}
	return absent
}

// Event is what there is to tell of the node, in kubelet's words.
type Event struct {
	Type    string // corev1.EventTypeNormal or Warning
	Reason  string
	Message string
}
