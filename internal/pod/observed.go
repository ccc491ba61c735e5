package pod

import (
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// RuntimeState is what the container runtime holds of one pod: every sandbox
// and every container, dead ones included, in no particular order.
type RuntimeState struct {
	UID             types.UID
	Namespace, Name string
	Sandboxes       []Sandbox
	Containers      []Container
}

// Empty tells whether the runtime holds nothing of the pod.
func (s RuntimeState) Empty() bool { return len(s.Sandboxes) == 0 && len(s.Containers) == 0 }

// SandboxState says how far a sandbox is.
type SandboxState string

const (
	// SandboxReady has its namespaces, network and record complete.
	SandboxReady SandboxState = "Ready"
	// SandboxNotReady is half made, lost its namespaces or network (another
	// boot, a deleted pin), or was stopped.
	SandboxNotReady SandboxState = "NotReady"
)

// Sandbox is one sandbox of a pod.
type Sandbox struct {
	ID          string
	Attempt     uint32
	State       SandboxState
	Stopped     bool   // its network and namespaces are released; only the record is left
	Reason      string // why it is not ready: Incomplete, NetworkLost, Rebooted, Stopped
	Created     time.Time
	Addrs       []netip.Addr // empty on the host network
	HostNetwork bool
	Grace       int64  // seconds, LabelGrace
	Netns       string // path of the pinned network namespace; "" on the host network
}

// ContainerState is CRI's state of a container.
type ContainerState string

const (
	ContainerCreated ContainerState = "Created" // no task was started yet
	ContainerRunning ContainerState = "Running"
	ContainerExited  ContainerState = "Exited"
)

// Container is one run of a container of a pod.
type Container struct {
	ID        string
	Name      string
	SandboxID string
	Init      bool
	Attempt   uint32        // 0 for the first run; the restart count of this run
	Hash      string        // LabelHash
	Backoff   time.Duration // LabelBackoff
	// RecursiveReadOnly is LabelRecursiveReadOnly.
	RecursiveReadOnly bool
	Image             string // as the spec wrote it
	ImageID           string // repository digest, or the config digest where there is none

	// Sidecar is the place of a sidecar among the init containers, from 1; 0: it is
	// none. PreStop is the container's preStop hook as EncodeHook writes it, for when
	// its spec is gone.
	Sidecar int
	PreStop string

	// User is whom its first process began as; nil: a record of an earlier daemon
	// that did not note it.
	User *corev1.LinuxContainerUser

	State     ContainerState
	Pid       uint32 // of the init process while running
	Created   time.Time
	Started   time.Time
	Finished  time.Time
	ExitCode  int32
	OOMKilled bool
	Reason    string // of the exit where known: OOMKilled, Completed, Error, StartError, ContainerStatusUnknown
	Message   string
	LogPath   string

	// PostStart tells that the run's postStart hook has not ended yet.
	PostStart bool
	// Stop is what is known of its end while that is under way.
	Stop Stop
}

// Stop is the end of a container that somebody wants. It outlives the daemon.
type Stop struct {
	// By is when what is left gets SIGKILL; zero: nobody wants its end. Of a
	// container that got its preStop hook late it may be past before TERM was sent.
	By time.Time
	// Hooked: its preStop hook was run to its end, or to that of its time.
	Hooked bool
	// Again: it is to start again, whatever its restart policy says.
	Again bool
}

// Health is what the probes say of one run of a container.
type Health struct {
	// Started: its startup probe has succeeded once, or it has none.
	Started bool
	// Ready: its readiness probe succeeds, or it has none.
	Ready bool
	// Unhealthy says which probe wants this run ended, and why, in kubelet's
	// words; "" none does.
	Unhealthy string
	// Grace is the probe's own terminationGracePeriodSeconds for that end; nil:
	// the pod's counts.
	Grace *int64
}

// Op names one operation that the worker runs for a pod; at most one of a kind
// runs at a time for the same object.
type Op struct {
	Kind   ActionKind
	Object string // a container's name or id, a sandbox's id, or ""
}

// Failure is the last error of an operation.
type Failure struct {
	Reason  string // ErrImagePull, CreateContainerError, FailedCreatePodSandBox, …
	Message string
	Count   int       // failures in a row
	At      time.Time // when the last one ended
	Since   time.Time // when the first one of the row ended
	// Absent: it failed for want of an object or of a key in one. Time does not
	// mend that: the change of the object does, and then the failure is forgotten.
	Absent bool
	// Network: it was the pod's network that could not be set up.
	Network bool
	// Away: the container runtime was not there to be asked. That is nothing of the
	// pod's, and over as soon as the runtime is back.
	Away bool
}

// Observed is everything that a plan is made from, besides the wish.
type Observed struct {
	RuntimeState

	// NetworkNotReady says why pods that need a network of their own cannot
	// start now; "" when they can.
	NetworkNotReady string
	// Prepared is set while the pod's cgroup and directories are known to be
	// complete. A daemon that adopts a pod makes sure of it first.
	Prepared bool
	// Stale is set while volumes show objects, or the pod, as they were.
	Stale bool
	// Dirty is set while any of them may exist.
	Dirty bool
	// Released is set once the cgroup of a pod that has ended is gone.
	Released bool
	// Health holds the probes' verdicts by container id. A run without an entry
	// was not judged yet: see HealthOf.
	Health map[string]Health
	// Since is when this node first prepared the pod; zero: not known (yet).
	Since time.Time
	// Again holds the runs, by container id, whose restart was asked for.
	Again map[string]bool
	// Backoff holds the back-off of the next run of containers of which no record is
	// left that could tell it, by name.
	Backoff map[string]time.Duration
	// Running holds the operations in flight.
	Running map[Op]bool
	// Failed holds the operations whose last run failed.
	Failed map[Op]Failure
}
