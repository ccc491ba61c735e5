package pod

import "time"

// messageDeadline is kubelet's, as other software compares it.
const messageDeadline = "Pod was active on the node longer than the specified deadline"

// started is when this node first acted on the pod: when it prepared it, or when the
// oldest sandbox was made that is left; zero: not known. The two outlive the daemon,
// the first also a sandbox that had to be replaced.
func (o *Observed) started() time.Time {
	first := o.Since
	for _, s := range o.Sandboxes {
		if !s.Created.IsZero() && (first.IsZero() || s.Created.Before(first)) {
			first = s.Created
		}
	}
	return first
}

// deadline is when the pod has run for as long as activeDeadlineSeconds allows; false:
// there is none, or the pod has not begun.
func deadline(d Desired, o Observed) (time.Time, bool) {
	start := o.started()
	if d.Pod.Spec.ActiveDeadlineSeconds == nil || start.IsZero() {
		return time.Time{}, false
	}
	return start.Add(Seconds(*d.Pod.Spec.ActiveDeadlineSeconds)), true
}

// exceeded tells whether the pod has run, or did run, longer than it may. One that
// had completed before is what it was.
func exceeded(d Desired, o Observed, now time.Time) bool {
	at, limited := deadline(d, o)
	if !limited || at.After(now) {
		return false
	}
	if !completed(d, o) {
		return true
	}
	for i := range o.Containers {
		c := &o.Containers[i]
		if c.Sidecar == 0 && c.Finished.After(at) {
			return true
		}
	}
	return false
}
