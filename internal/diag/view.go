package diag

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
	"nodeagent/internal/source"
)

// APIVersion of every document that the command line prints. Fields are only
// ever added to it.
const APIVersion = "nodeagent/v1alpha1"

// TypeMeta heads each document.
type TypeMeta struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

// Of returns the head of a document.
func Of(kind string) TypeMeta { return TypeMeta{APIVersion: APIVersion, Kind: kind} }

// Sources of a View.
const (
	FromDaemon  = "daemon"  // the daemon's own word, joined with containerd's records
	FromRuntime = "runtime" // containerd's records, the kernel and the manifests
	FromLogs    = "logs"    // the directories of log files alone
)

// View is what there is on the node at one moment. Lists are never nil.
type View struct {
	Source   string
	Pods     []Pod
	Problems []Problem
	// Notes say what could not be asked, for the operator.
	Notes []string

	node    string                  // its name, as far as it is known
	facts   map[types.UID]pod.Facts // what was seen of each pod, for Explain
	objects *source.Objects         // of the manifests, with the daemon dead
	kept    map[types.UID]bool      // the API server's pods, with the daemon dead
}

// Problem is a manifest that cannot be used.
type Problem struct {
	File    string     `json:"file"`
	Line    int        `json:"line,omitempty"`
	Pod     string     `json:"pod,omitempty"`
	Message string     `json:"message"`
	Since   *time.Time `json:"since,omitempty"`
}

// Pod is one pod.
type Pod struct {
	Namespace   string     `json:"namespace"`
	Name        string     `json:"name"`
	UID         string     `json:"uid"`
	Phase       string     `json:"phase"`  // as in a pod's status; Unknown for what only containerd knows
	Status      string     `json:"status"` // the one word that kubectl shows
	Reason      string     `json:"reason,omitempty"`
	Message     string     `json:"message,omitempty"`
	Ready       int        `json:"readyContainers"`
	Total       int        `json:"totalContainers"`
	Restarts    int        `json:"restarts"`
	Created     *time.Time `json:"createdAt,omitempty"` // when the node first acted on it
	IPs         []string   `json:"ips"`
	HostNetwork bool       `json:"hostNetwork,omitempty"`
	QOSClass    string     `json:"qosClass,omitempty"`
	// Wanted is false for a pod that no manifest asks for, or whose manifest is
	// not known.
	Wanted     bool        `json:"wanted"`
	Sandboxes  []Sandbox   `json:"sandboxes"`
	Containers []Container `json:"containers"` // every run that is recorded, and those still awaited

	spec *corev1.Pod
}

// Sandbox is a sandbox of a pod.
type Sandbox struct {
	ID      string     `json:"id"`
	Attempt uint32     `json:"attempt"`
	State   string     `json:"state"`
	Reason  string     `json:"reason,omitempty"`
	Created *time.Time `json:"createdAt,omitempty"`
	IPs     []string   `json:"ips"`
	Netns   string     `json:"netns,omitempty"`
}

// Container is one run of a container, or one that is awaited (no ID).
type Container struct {
	ID        string     `json:"id,omitempty"`
	Name      string     `json:"name"`
	SandboxID string     `json:"sandboxID,omitempty"`
	Init      bool       `json:"init,omitempty"`
	Attempt   uint32     `json:"attempt"`
	Latest    bool       `json:"latest"` // the newest run of this name
	Image     string     `json:"image"`
	ImageID   string     `json:"imageID,omitempty"`
	State     string     `json:"state"` // Waiting, Created, Running or Exited
	Reason    string     `json:"reason,omitempty"`
	Message   string     `json:"message,omitempty"`
	Ready     bool       `json:"ready"`
	Pid       uint32     `json:"pid,omitempty"`
	ExitCode  *int32     `json:"exitCode,omitempty"`
	OOMKilled bool       `json:"oomKilled,omitempty"`
	Created   *time.Time `json:"createdAt,omitempty"`
	Started   *time.Time `json:"startedAt,omitempty"`
	Finished  *time.Time `json:"finishedAt,omitempty"`
	LogPath   string     `json:"logPath,omitempty"`
	// Wait says what a container that has ended waits for before its next run.
	Wait string `json:"wait,omitempty"`
}

// Running tells whether the container has a process.
func (c *Container) Running() bool { return c.State == "Running" }

// FullName is namespace/name.
func (p *Pod) FullName() string { return p.Namespace + "/" + p.Name }

// instant is nil for the zero time.
func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	u := t.UTC()
	return &u
}
