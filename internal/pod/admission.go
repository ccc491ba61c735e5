package pod

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Admission is what the node admits at one moment.
type Admission struct {
	Allowed
	// Node has the labels, taints, features and allocatable that pods are held
	// against; nil where the node has no object: then only what it can do at all is
	// asked.
	Node *corev1.Node
	// Fresh tells that Node was read for this decision. Without it, nobody is
	// refused for a label that may have come a moment ago.
	Fresh bool
	// OS is the node's, as Go spells it.
	OS string
	// Pressure are the conditions under which the node evicts, if any.
	Pressure []corev1.NodeConditionType
	// ShuttingDown tells that the node goes down.
	ShuttingDown bool
}

// Candidate is a pod that is to be on the node.
type Candidate struct {
	Pod *corev1.Pod
	// Held tells that the runtime holds something of it: it was admitted before.
	Held bool
	// Over tells that nothing of it runs or ever will again, so that it uses nothing.
	Over bool
}

// Verdicts tell of each pod whether it is admitted (nil) or why not.
type Verdicts map[types.UID]*Rejection

// Decide judges the pods that were not judged yet, the oldest first, each beside
// those that the node has taken on. A verdict stands as long as the pod does:
// before has those of this process, and what an earlier one decided is told by the
// runtime (Held) and by the pod's status: only the node writes a startTime, and a
// phase that is final says how it ended, or that it was refused. So neither a
// restart of the daemon nor a changed label ends a pod that runs.
//
// unsure are pods that have no verdict yet, since nothing but the node's labels is
// against them: read the node anew and ask again with Fresh.
func (a Admission) Decide(before Verdicts, all []Candidate) (verdicts Verdicts, unsure []types.UID) {
	verdicts = make(Verdicts, len(all))
	var open []Candidate
	var taken []*corev1.Pod
	for _, c := range all {
		verdict, known := before[c.Pod.UID]
		if !known && !c.decided() {
			open = append(open, c)
			continue
		}
		verdicts[c.Pod.UID] = verdict
		if verdict == nil && !c.gone() {
			taken = append(taken, c.Pod)
		}
	}
	slices.SortStableFunc(open, func(x, y Candidate) int {
		return cmp.Or(x.Pod.CreationTimestamp.Compare(y.Pod.CreationTimestamp.Time), cmp.Compare(x.Pod.UID, y.Pod.UID))
	})
	for _, c := range open {
		verdict, labels := a.Judge(c.Pod, taken)
		if labels && !a.Fresh {
			unsure = append(unsure, c.Pod.UID)
			continue
		}
		verdicts[c.Pod.UID] = verdict
		if verdict == nil {
			taken = append(taken, c.Pod)
		}
	}
	return verdicts, unsure
}

// decided tells whether the pod needs no verdict: an earlier daemon gave it, or it
// is on its way out and will never start.
func (c Candidate) decided() bool {
	return c.Held || c.Over || c.Pod.DeletionTimestamp != nil || c.Pod.Status.StartTime != nil || Over(c.Pod.Status.Phase)
}

// gone tells whether the pod uses nothing of the node.
func (c Candidate) gone() bool {
	return c.Over || !c.Held && (c.Pod.DeletionTimestamp != nil || Over(c.Pod.Status.Phase))
}

// Judge tells whether the node takes the pod on beside the others, in the order of
// kubelet's admission handlers and with its reasons; the first refusal counts. The
// pod is defaulted and valid. labels tells that nothing but the node's labels
// refuses it.
func (a Admission) Judge(p *corev1.Pod, others []*corev1.Pod) (r *Rejection, labels bool) {
	if r := a.admitPressure(p); r != nil {
		return r, false
	}
	if r := admitSysctls(p, a.UnsafeSysctls); r != nil {
		return r, false
	}
	if r, labels := a.admitPlace(p, others); r != nil {
		return r, labels
	}
	if r := admitAppArmor(p, a.NoAppArmor); r != nil {
		return r, false
	}
	if static(p) {
		if r := Unbuilt(p, a.Allowed); r != nil {
			return r, false
		}
	}
	if a.ShuttingDown {
		return &Rejection{Reason: ReasonNodeShutdown, Message: "Pod was rejected as the node is shutting down."}, false
	}
	return nil, false
}

// Critical tells whether the node has to run the pod before others (kubelet's
// IsCriticalPod).
func Critical(p *corev1.Pod) bool {
	_, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]
	return static(p) || mirror || p.Spec.Priority != nil && *p.Spec.Priority >= systemCritical
}

// systemCritical is the priority from which on a pod is critical.
const systemCritical = 2_000_000_000
