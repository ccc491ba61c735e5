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
	// does: "file".
	Source string
	// Pods are defaulted, valid, and carry the identity of static pods. They are
	// sorted by file name, then by their place in the file.
	Pods []*corev1.Pod
	// Rejected says which of Pods this node does not admit, and why: their phase
	// is Failed and nothing of them is started.
	Rejected map[types.UID]pod.Rejection
	// Objects are the ConfigMaps, Secrets and Services of the directory.
	Objects Objects
	// Synced is true from the first snapshot on, which is sent after the first
	// full pass over the directory.
	Synced bool
	// Trusted says that a pod which is not listed is not wanted. It is false as
	// long as the directory was never seen, or a file in it has never been
	// understood since the daemon started: a running pod that is not listed may
	// be from there, so nothing is ended for being absent, except what an earlier
	// snapshot of this process listed. Once true it stays true, since from then
	// on the last good content of each file is known.
	Trusted bool
	// Problems says what was not understood, sorted by file and line.
	Problems []Problem
}

// Problem is something in the manifest directory that its owner has to mend.
type Problem struct {
	File    string // path; the directory itself where no file is at fault
	Line    int    // from 1; 0 where no line is known
	Pod     string // namespace/name, "" where the pod is not known
	Message string // lower case, one line, never the value of a field
	Since   time.Time
}
