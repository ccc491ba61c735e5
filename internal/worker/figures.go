package worker

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// Figures is told how long things take and how they end. It never blocks and is called by any worker.
type Figures interface {
	// Began: the worker of a new pod begins, so long after the pod was first seen.
	Began(waited time.Duration)
	// Step: a step of a worker has ended, with or without success.
	Step(kind StepKind, took time.Duration)
	// Ran: a new pod runs, so long after it was first seen.
	Ran(took time.Duration)
	// Started: a container of the pod was started, or could not be for a reason of
	// pod's.
	Started(p *corev1.Pod, container, reason string)
}

// StepKind is what a pod is about while a step is done for it.
type StepKind int

// The kinds of steps.
const (
	StepCreate StepKind = iota // it does not run yet
	StepSync                   // it runs, or ran
	StepKill                   // it is to go
)

// clock is how long a worker's pod takes. It belongs to the goroutine of run.
type clock struct {
	seen time.Time // zero: it was here before, is on its way out, or runs
}

// see notes when the pod was first seen.
func (c *clock) see(at time.Time, leaves bool) {
	if !leaves {
		c.seen = at
	}
}

// firstSeen is when each wanted pod without a worker was offered first. Called with
// mu held, once for all that was offered meanwhile.
func (s *Set) firstSeen(wanted map[types.UID]pod.Desired) map[types.UID]time.Time {
	at := s.offered
	if at.IsZero() {
		at = time.Now()
	}
	s.offered = time.Time{}
	before := s.waiting
	s.waiting = map[types.UID]time.Time{}
	for uid := range wanted {
		if s.workers[uid] != nil {
			continue
		}
		if first, waits := before[uid]; waits {
			s.waiting[uid] = first
		} else {
			s.waiting[uid] = at
		}
	}
	return s.waiting
}

// timeBegin tells that the worker of a pod that was seen begins.
func (w *worker) timeBegin(now time.Time) {
	if f := w.set.cfg.Figures; f != nil && !w.clock.seen.IsZero() {
		f.Began(now.Sub(w.clock.seen))
	}
}

// timeStep tells of a step that has ended.
func (w *worker) timeStep(took time.Duration) {
	f := w.set.cfg.Figures
	if f == nil {
		return
	}
	kind := StepSync
	switch {
	case w.wish().Wish == pod.WishAbsent:
		kind = StepKill
	case w.status.Phase == "" || w.status.Phase == corev1.PodPending:
		kind = StepCreate
	}
	f.Step(kind, took)
}

// countStart tells of an attempt to start a container.
func (w *worker) countStart(p *corev1.Pod, container, reason string) {
	if f := w.set.cfg.Figures; f != nil {
		f.Started(p, container, reason)
	}
}

// timeStatus tells, once, that the pod runs. One that ended before it was seen to run
// is not told of.
func (w *worker) timeStatus(status *corev1.PodStatus, now time.Time) {
	if status.Phase == "" || status.Phase == corev1.PodPending || w.clock.seen.IsZero() {
		return
	}
	if f := w.set.cfg.Figures; f != nil && status.Phase == corev1.PodRunning {
		f.Ran(now.Sub(w.clock.seen))
	}
	w.clock.seen = time.Time{}
}
