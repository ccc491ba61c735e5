package pod

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// GateName names what a pod has to pass, one after another, to be Ready, or to be gone.
type GateName string

// The gates of a pod that is to run, in order. Image, create, start and probes are
// those of each container.
const (
	GateSource    GateName = "source"
	GateAdmission GateName = "admission"
	GateSandbox   GateName = "sandbox"
	GateNetwork   GateName = "network"
	GateVolumes   GateName = "volumes"
	GateImage     GateName = "image"
	GateCreate    GateName = "create"
	GateStart     GateName = "start"
	GateProbes    GateName = "probes"
	GateReady     GateName = "Ready"
)

// The gates of a pod that is to go: source, stop of each container, network, remove,
// volumes, gone.
const (
	GateStop   GateName = "stop"
	GateRemove GateName = "remove" // the containers' records and snapshots
	GateGone   GateName = "gone"   // the sandbox's record, which goes last
)

// GateState says how a gate stands.
type GateState string

// States of a gate. One that waits does so for something that comes by itself; one that
// is blocked needs a change, or goes on failing; one that has failed is not tried again.
const (
	GatePassed     GateState = "passed"
	GateWaiting    GateState = "waiting"
	GateBlocked    GateState = "blocked"
	GateFailed     GateState = "failed"
	GateNotReached GateState = "not reached"
)

// Gate is one gate as it stands.
type Gate struct {
	Gate      GateName   `json:"gate"`
	Container string     `json:"container,omitempty"`
	State     GateState  `json:"state"`
	Since     *time.Time `json:"since,omitempty"` // of the state; nil: nobody knows
	Reason    string     `json:"reason,omitempty"`
	Detail    string     `json:"detail,omitempty"`    // what it waits for, or what there is
	LastError string     `json:"lastError,omitempty"` // in full; also of a gate that was passed since
	Failures  int        `json:"failures,omitempty"`  // in a row
	Next      *time.Time `json:"nextTry,omitempty"`
	Do        string     `json:"do,omitempty"` // what an operator can do
}

// Explanation says why a pod is not Ready, or not gone, gate by gate.
type Explanation struct {
	Namespace string          `json:"namespace"`
	Name      string          `json:"name"`
	UID       types.UID       `json:"uid,omitempty"`
	Phase     corev1.PodPhase `json:"phase,omitempty"`
	// Summary is one sentence that names the gate that blocks and what to do.
	Summary string `json:"summary"`
	// Blocks is the gate that blocks; nil: none does.
	Blocks *Gate  `json:"blocks,omitempty"`
	Gates  []Gate `json:"gates"`
	// Earlier is the pod of the same name for whose end this one waits.
	Earlier *Explanation `json:"earlier,omitempty"`
}

// Refusal is something in a manifest that cannot be used.
type Refusal struct {
	File    string
	Line    int    // 0 where none is known
	Message string // begins with the field where there is one
	Since   time.Time
}

// Flight is an operation under way.
type Flight struct {
	Step  GateName // how far a container's start is
	Since time.Time
}

// Answer is what a probe last said.
type Answer struct {
	Container string // id
	Probe     string // Startup, Readiness or Liveness
	Message   string // bounded and printable; "" of a success
	InRow     int
	Next      *time.Time
}

// Facts are what a pod's gates are told from. Nothing in them is changed.
type Facts struct {
	// Namespace and Name are for a pod of which nothing but its refusal is known.
	Namespace, Name string
	Desired         Desired
	Observed        Observed
	// Told is the status last told; nil: nobody remembers it.
	Told *corev1.PodStatus
	// Flights are the operations under way.
	Flights map[Op]Flight
	// Refused is what is wrong with the pod's manifest as it is now.
	Refused []Refusal
	// Behind is the UID of an earlier pod of the same name that has to be gone first.
	Behind types.UID
	// Held says why the daemon does not act on any pod yet.
	Held    string
	Answers []Answer

	// Dead tells that no daemon answers: then Observed lacks what it alone remembers, and
	// the rest is what can be read nevertheless.
	Dead bool
	// Unsure tells that nobody knows whether the pod is wanted: an API server may want it.
	Unsure bool
	// Lacks are objects that the pod refers to and that are not there.
	Lacks map[ObjectRef]bool
	// Images tells of images whether they are on the node.
	Images map[string]bool
	// Mounts are the mount points in the pod's directory.
	Mounts []string
}

// Explain tells how each gate of the pod stands, and which one blocks.
func Explain(f Facts, now time.Time) Explanation {
	e := explainer{Facts: f, now: now}
	e.plan = planner{d: f.Desired, o: f.Observed, now: now}
	switch {
	case f.Desired.Pod == nil && f.Observed.RuntimeState.Empty() && len(f.Refused) > 0:
		e.gates = []Gate{e.refused()}
		for _, name := range []GateName{GateAdmission, GateSandbox, GateNetwork, GateVolumes, GateReady} {
			e.add(name, Gate{State: GateNotReached})
		}
	case f.Desired.Pod == nil && f.Unsure:
		e.unsure()
	case f.Desired.Pod == nil, f.Desired.Wish == WishAbsent:
		e.leave()
	default:
		e.come()
	}
	out := Explanation{Gates: e.gates, Blocks: e.blocks()}
	out.Namespace, out.Name, out.UID = e.identity()
	if f.Told != nil {
		out.Phase = f.Told.Phase
	} else if e.status != nil {
		out.Phase = e.status.Phase
	}
	out.Summary = e.summary(&out)
	return out
}

// explainer collects the gates of one pod.
type explainer struct {
	Facts
	now    time.Time
	plan   planner
	status *corev1.PodStatus // as told, or worked out
	gates  []Gate
}

func (e *explainer) add(name GateName, g Gate) GateState {
	g.Gate = name
	e.gates = append(e.gates, g)
	return g.State
}

func (e *explainer) identity() (namespace, name string, uid types.UID) {
	o := &e.Observed.RuntimeState
	switch p := e.Desired.Pod; {
	case p != nil:
		return p.Namespace, p.Name, p.UID
	case o.Name != "":
		return o.Namespace, o.Name, o.UID
	}
	return e.Namespace, e.Name, o.UID
}

// blocks finds the gate that blocks: the first that has failed, else the first that is
// blocked, else the first that waits.
func (e *explainer) blocks() *Gate {
	for _, state := range []GateState{GateFailed, GateBlocked, GateWaiting} {
		for i := range e.gates {
			if e.gates[i].State == state {
				g := e.gates[i]
				return &g
			}
		}
	}
	return nil
}

// failure is the gate of an operation that failed and is tried again.
func failure(f Failure) Gate {
	g := Gate{State: GateBlocked, Since: moment(f.Since), Reason: f.Reason, LastError: f.Message, Failures: f.Count}
	if !f.Absent {
		g.Next = moment(f.RetryAt())
	}
	return g
}

// soon is how long an operation that failed before counts as failing while it is tried
// again.
const soon = 10 * time.Second

// under tells of an operation under way, with the error of the time before.
func (e *explainer) under(op Op, detail string) Gate {
	since := e.Flights[op].Since
	g := Gate{State: GateWaiting, Detail: detail, Since: moment(since)}
	f, failed := e.Observed.Failed[op]
	switch {
	case failed && e.now.Sub(since) < soon:
		g = failure(f)
		g.Detail, g.Next = "tried again now: "+detail, moment(e.now)
	case failed:
		g.Reason, g.LastError, g.Failures = f.Reason, f.Message, f.Count
	}
	return g
}

// long is how long an operation of the runtime takes where something hangs: usual are
// tenths of a second.
const long = 15 * time.Second

// hanging is the gate of an operation that has taken so long, since then, that something
// of the pod's own must hang.
func (e *explainer) hanging(g Gate, since time.Time) Gate {
	if took := e.now.Sub(since); g.State == GateWaiting && !since.IsZero() && took >= long {
		g.State, g.Do = GateBlocked, adviceHangs
		g.Detail += fmt.Sprintf(", for %s now: something hangs", took.Round(time.Second))
	}
	return g
}

// failed finds the failure of a step of these kinds, the one that lasts longest.
func (e *explainer) failed(kinds ...ActionKind) (found Failure, ok bool) {
	for op, f := range e.Observed.Failed {
		if slices.Contains(kinds, op.Kind) && (!ok || f.Since.Before(found.Since) || f.Since.Equal(found.Since) && f.Message < found.Message) {
			found, ok = f, true
		}
	}
	return found, ok
}

// moment is nil for a time that is not known.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC())
}
