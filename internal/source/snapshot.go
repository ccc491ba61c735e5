package source

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// Snapshot is all that one source wants of the node at one moment. The latest
// one replaces those before it.
type Snapshot struct {
	// Source names where the pods come from, as kubernetes.io/config.source
	// does: "file", "http" or "api".
	Source string
	// Pods are defaulted and valid. Those of files carry the identity of static
	// pods, and are sorted by file name, then by their place in the file; those of
	// the API server by namespace and name. A pod of which the server says nothing
	// new but the node's own words is the same pointer as before.
	Pods []*corev1.Pod
	// Ending says which of Pods are to go, and within how many seconds from when
	// that is first seen. The API server shows a deleted pod until the node has
	// confirmed its end, so it stays listed until then.
	Ending map[types.UID]int64
	// Mirrors are the API server's pictures of static pods. They are not in Pods
	// and are never run.
	Mirrors []*corev1.Pod
	// Rejected says which of Pods this node does not admit, and why: their phase
	// is Failed and nothing of them is started.
	Rejected map[types.UID]pod.Rejection
	// Objects are the ConfigMaps, Secrets and Services of the directory.
	Objects Objects
	// Synced is true from the first snapshot on, which is sent after the first
	// full pass over the directory. The API server's source sends one at once, with
	// what the cache holds of pods that run, so that a server that is away holds up
	// nobody else.
	Synced bool
	// Trusted says that a pod which is not listed is not wanted. It is false as
	// long as the directory was never seen, or a file in it has never been
	// understood since the daemon started: a running pod that is not listed may
	// be from there, so nothing is ended for being absent, except what an earlier
	// snapshot of this process listed. Once true it stays true, since from then
	// on the last good content of each file is known.
	Trusted bool
	// Listed says that the API server itself told, in this process, what it has;
	// else the pods are those of the cache.
	Listed bool
	// Problems says what was not understood, sorted by file and line.
	Problems []Problem
}

// Problem is something in the manifest directory that its owner has to mend, or that
// keeps the API server from being heard.
type Problem struct {
	File    string // path; the directory itself where no file is at fault; the server
	Line    int    // from 1; 0 where no line is known
	Pod     string // namespace/name, "" where the pod is not known
	Message string // lower case, one line, never the value of a field
	Since   time.Time
}
