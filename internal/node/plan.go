package node

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Times of the Node's status.
const (
	// noiseEvery is how often what changes all the time, or what others changed,
	// is written at most: kubelet's nodeStatusUpdateFrequency.
	noiseEvery = 10 * time.Second
	// A node that changes its mind all the time may write so many changes at once,
	// and then one in such a time.
	changesAtOnce = 5
	changeEvery   = 2 * time.Second
)

// sighting is the Node as the API showed it.
type sighting struct {
	known bool         // the API has answered at all
	node  *corev1.Node // nil: there is none
}

// last is what was written, and what may be written next.
type last struct {
	uid     types.UID // of the Node written to
	wanted  *wanted
	at      time.Time
	due     time.Time // of the report that is made without a change
	credit  time.Time // when the changes so far are paid for
	refused string    // the change that the server does not keep, although it took it
	retry   backoff
	yielded bool // another writes this node's lease
}

// verb is what to do with the Node.
type verb int

const (
	wait verb = iota
	create
	patch
)

// step is what to do now, or when to look again; a zero time: when told.
type step struct {
	do     verb
	change change
	report bool // nothing changed, it is only time
	at     time.Time
}

// plan decides what to write of the node.
func plan(w *wanted, s sighting, l last, register bool, now time.Time) step {
	switch {
	case !s.known, l.yielded:
		return step{}
	case now.Before(l.retry.until):
		return step{at: l.retry.until}
	case s.node == nil && !register:
		return step{}
	case s.node == nil:
		return step{do: create}
	}
	first := s.node.UID != l.uid
	changed := w.diff(s.node, first)
	if first {
		return step{do: patch, change: changed}
	}
	if !w.equal(l.wanted) {
		if at := l.credit.Add(-changesAtOnce * changeEvery); now.Before(at) {
			return step{at: at}
		}
		return step{do: patch, change: changed}
	}
	if !now.Before(l.due) {
		return step{do: patch, change: changed, report: true}
	}
	if changed.any() && changed.key() != l.refused {
		if at := l.at.Add(noiseEvery); now.Before(at) {
			return step{at: earlier(at, l.due)}
		}
		return step{do: patch, change: changed}
	}
	return step{at: l.due}
}

// wrote is what is known after a write of w at a time, to which the server
// answered with a Node. dice is from [0,1).
func (l last) wrote(answer *corev1.Node, w *wanted, report bool, every time.Duration, now time.Time, dice float64) last {
	next := last{uid: answer.UID, wanted: w, at: now, credit: l.credit, due: now.Add(every)}
	if left := w.diff(answer, false); left.any() {
		next.refused = left.key() // a field that it is too old to know: not to be written again and again
	}
	if !report {
		// Nodes that changed together, as all do when the API server comes back, shall
		// not report together from then on.
		next.due = now.Add(every/2 + time.Duration(dice*float64(every)))
		if next.credit.Before(now) {
			next.credit = now
		}
		next.credit = next.credit.Add(changeEvery)
	}
	return next
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
