package pod

import "time"

// ActionKind names a step that changes the world.
type ActionKind string

const (
	// Prepare makes the pod's cgroup, directories and volumes.
	Prepare ActionKind = "Prepare"
	// RefreshVolumes brings up to date what volumes show of objects and of the pod.
	RefreshVolumes ActionKind = "RefreshVolumes"
	// RunSandbox makes record, namespaces and network of a new sandbox.
	RunSandbox ActionKind = "RunSandbox"
	// StopSandbox releases network and namespaces; the record stays.
	StopSandbox ActionKind = "StopSandbox"
	// RemoveSandbox deletes the record of a stopped sandbox.
	RemoveSandbox ActionKind = "RemoveSandbox"
	// StartContainer has the image at hand, creates the container and starts it.
	StartContainer ActionKind = "StartContainer"
	// PostStart runs the postStart hook of a container that runs.
	PostStart ActionKind = "PostStart"
	// PreStop notes when a container has to have ended, and runs its preStop hook;
	// StopContainer follows.
	PreStop ActionKind = "PreStop"
	// StopContainer ends a running container with grace.
	StopContainer ActionKind = "StopContainer"
	// ShortenStop gives a StopContainer that is under way less time.
	ShortenStop ActionKind = "ShortenStop"
	// RemoveContainer deletes a dead or never started container with its
	// snapshot and its log files.
	RemoveContainer ActionKind = "RemoveContainer"
	// ReleaseCgroup removes cgroup and volumes of a pod that will not run again.
	ReleaseCgroup ActionKind = "ReleaseCgroup"
	// Cleanup removes the pod's cgroup, volumes, directories and logs, in this order.
	Cleanup ActionKind = "Cleanup"
)

// Action is one step of a plan. Which fields count depends on the kind.
type Action struct {
	Kind      ActionKind
	Sandbox   string // id; for StartContainer: the sandbox to start in
	Container string // id of the container to stop or remove
	Name      string // name of the container in the spec, to start
	Attempt   uint32
	Backoff   time.Duration // to be written on the new container, or on the one after it where all are removed
	Grace     time.Duration // to stop with, hook included
	Again     bool          // it is stopped only to be started again
	Reason    string        // why, for events and logs
}

// Op is the key under which the worker holds the action while it runs.
func (a Action) Op() Op {
	switch a.Kind {
	case StartContainer:
		return Op{Kind: a.Kind, Object: a.Name}
	case StopContainer, RemoveContainer, PostStart, PreStop, ShortenStop:
		return Op{Kind: a.Kind, Object: a.Container}
	case StopSandbox, RemoveSandbox:
		return Op{Kind: a.Kind, Object: a.Sandbox}
	default:
		return Op{Kind: a.Kind}
	}
}
