package node

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// reasonNotJudged is the reason of a condition that nobody looks at.
const reasonNotJudged = "NotJudged"

// words is how a condition is told: reason, message and event.
type words struct{ reason, message, event string }

// pressure is a condition that is bad when true.
type pressure struct {
	kind    corev1.NodeConditionType
	of      func(Verdicts) *bool
	yes, no words
}

// pressures in kubelet's order and words.
var pressures = []pressure{
	{corev1.NodeMemoryPressure, func(v Verdicts) *bool { return v.Memory },
		words{"KubeletHasInsufficientMemory", "kubelet has insufficient memory available", "NodeHasInsufficientMemory"},
		words{"KubeletHasSufficientMemory", "kubelet has sufficient memory available", "NodeHasSufficientMemory"}},
	{corev1.NodeDiskPressure, func(v Verdicts) *bool { return v.Disk },
		words{"KubeletHasDiskPressure", "kubelet has disk pressure", "NodeHasDiskPressure"},
		words{"KubeletHasNoDiskPressure", "kubelet has no disk pressure", "NodeHasNoDiskPressure"}},
	{corev1.NodePIDPressure, func(v Verdicts) *bool { return v.PIDs },
		words{"KubeletHasInsufficientPID", "kubelet has insufficient PID available", "NodeHasInsufficientPID"},
		words{"KubeletHasSufficientPID", "kubelet has sufficient PID available", "NodeHasSufficientPID"}},
}

// conditions are the node's conditions, without times. Ready is the last, as old
// control planes need it.
func conditions(v Verdicts, f Facts) []corev1.NodeCondition {
	var all []corev1.NodeCondition
	for _, p := range pressures {
		c := corev1.NodeCondition{Type: p.kind, Status: corev1.ConditionUnknown, Reason: reasonNotJudged,
			Message: "nodeagent does not look at this yet"}
		switch under := p.of(v); {
		case under == nil:
		case *under:
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, p.yes.reason, p.yes.message
		default:
			c.Status, c.Reason, c.Message = corev1.ConditionFalse, p.no.reason, p.no.message
		}
		all = append(all, c)
	}
	return append(append(all, v.Others...), ready(v, f))
}

// maxMessage bounds what is said of a node that is not ready.
const maxMessage = 4 << 10

func ready(v Verdicts, f Facts) corev1.NodeCondition {
	c := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
		Message: "kubelet is posting ready status"}
	if !v.Judged {
		c.Status, c.Reason, c.Message = corev1.ConditionUnknown, reasonNotJudged, "nodeagent does not know yet whether pods can run"
		return c
	}
	var why []string
	for _, err := range v.NotReady {
		why = append(why, err.Error())
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourcePods, corev1.ResourceEphemeralStorage} {
		if _, has := f.Capacity[name]; !has {
			why = append(why, "missing node capacity for resources: "+string(name))
		}
	}
	if len(why) > 0 {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, "KubeletNotReady", strings.Join(why, ", ")
	}
	if len(c.Message) > maxMessage {
		c.Message = strings.ToValidUTF8(c.Message[:maxMessage], "") + "…"
	}
	return c
}

// maxSkew is how far clocks may be apart: tokens and certificates that have just
// been made are good on both sides.
const maxSkew = time.Minute

// ClockSkew is the condition of a node whose clock is so far ahead of the API
// server's (behind, if negative).
func ClockSkew(ahead time.Duration) corev1.NodeCondition {
	c := corev1.NodeCondition{Type: "ClockSkew", Status: corev1.ConditionFalse, Reason: "ClocksAgree",
		Message: "the clock of this node and the API server's agree"}
	if ahead.Abs() > maxSkew {
		c.Status, c.Reason = corev1.ConditionTrue, "ClocksDisagree"
		c.Message = "the clock of this node is " + ahead.Abs().Round(time.Minute).String() + " ahead of the API server's: set it, or tokens and certificates will be refused"
		if ahead < 0 {
			c.Message = strings.Replace(c.Message, "ahead of", "behind", 1)
		}
	}
	return c
}

// stamped gives the conditions their times: now, and the time since when each
// has its status, by what the API shows.
func stamped(wanted, seen []corev1.NodeCondition, now metav1.Time) []corev1.NodeCondition {
	all := make([]corev1.NodeCondition, len(wanted))
	for i, c := range wanted {
		c.LastHeartbeatTime, c.LastTransitionTime = now, now
		if was := find(seen, c.Type); was != nil && was.Status == c.Status && !was.LastTransitionTime.IsZero() {
			c.LastTransitionTime = was.LastTransitionTime
		}
		all[i] = c
	}
	return all
}

func find(all []corev1.NodeCondition, kind corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range all {
		if all[i].Type == kind {
			return &all[i]
		}
	}
	return nil
}

// transitions is what there is to tell when the conditions of a Node that was
// there become those that are wanted.
func transitions(name string, wanted, seen []corev1.NodeCondition) []Event {
	var all []Event
	tell := func(reason string) {
		all = append(all, Event{corev1.EventTypeNormal, reason, "Node " + name + " status is now: " + reason})
	}
	for i := range wanted {
		c := &wanted[i]
		was := find(seen, c.Type)
		if was != nil && was.Status == c.Status || c.Status == corev1.ConditionUnknown {
			continue
		}
		if c.Type == corev1.NodeReady {
			switch {
			case was == nil: // as kubelet: a new Node becomes nothing
			case c.Status == corev1.ConditionTrue:
				tell("NodeReady")
			default:
				tell("NodeNotReady")
			}
			continue
		}
		for _, p := range pressures {
			switch {
			case p.kind != c.Type:
			case c.Status == corev1.ConditionTrue:
				tell(p.yes.event)
			default:
				tell(p.no.event)
			}
		}
	}
	return all
}
