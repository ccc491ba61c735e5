package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// Explain tells what is known of a pod, for pod.Explain: what its worker decides by, or
// why it has none yet. ErrUnknown tells that nobody wants such a pod. It may be called
// from any goroutine; nothing is kept for it.
func (s *Set) Explain(ctx context.Context, uid types.UID) (pod.Facts, error) {
	for {
		s.mu.Lock()
		w := s.workers[uid]
		s.mu.Unlock()
		if w == nil {
			return s.awaited(uid)
		}
		facts, err := w.ask(ctx)
		if !errors.Is(err, errEnded) {
			return facts, err
		}
		s.mu.Lock()
		last := s.workers[uid] == w
		s.mu.Unlock()
		if last { // the set has not noticed yet
			return facts, fmt.Errorf("pod %s: %w", uid, ErrUnknown)
		}
	}
}

// awaited tells of a pod that has no worker: it is wanted and may not start yet.
func (s *Set) awaited(uid types.UID) (pod.Facts, error) {
	f, ok := s.unstarted(uid)
	if !ok {
		return f, fmt.Errorf("pod %s: %w", uid, ErrUnknown)
	}
	if f.Behind != "" {
		return f, nil
	}
	select {
	case <-s.cfg.Runtime.Synced():
		f.Held = "the daemon has just heard of it"
	default:
		f.Held = "the daemon has not read containerd's records yet, and begins nothing before: does containerd run?"
	}
	return f, nil
}

func (s *Set) unstarted(uid types.UID) (f pod.Facts, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted, _, _ := s.wanted()
	if f.Desired, ok = wanted[uid]; !ok || f.Desired.Wish != pod.WishRun {
		return pod.Facts{}, false
	}
	for _, w := range s.workers {
		if w.name == fullName(f.Desired.Pod) {
			f.Behind = w.uid
		}
	}
	return f, true
}

// Awaited lists the pods that are wanted and have no worker yet. They must not be
// changed.
func (s *Set) Awaited() []*corev1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted, _, _ := s.wanted()
	all := []*corev1.Pod{}
	for uid, d := range wanted {
		if s.workers[uid] == nil && d.Wish == pod.WishRun {
			all = append(all, d.Pod)
		}
	}
	return all
}

// question is put to a worker, which answers all who wait at its next turn.
type question struct {
	done  chan struct{}
	facts pod.Facts
	err   error
}

// errEnded: the worker makes no turn any more.
var errEnded = errors.New("the pod is gone")

// ask has the worker make a turn, and returns what it saw.
func (w *worker) ask(ctx context.Context) (pod.Facts, error) {
	w.mu.Lock()
	q := w.asking
	if w.ended {
		w.mu.Unlock()
		return pod.Facts{}, errEnded
	}
	if q == nil {
		q = &question{done: make(chan struct{})}
		w.asking = q
	}
	w.mu.Unlock()
	w.wake()
	select {
	case <-q.done:
		return q.facts, q.err
	case <-ctx.Done():
		return pod.Facts{}, fmt.Errorf("ask the pod's worker, which makes no turn: %w", context.Cause(ctx))
	}
}

// answer tells who asked what this turn was made from.
func (w *worker) answer(d pod.Desired, o pod.Observed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.asking == nil {
		return
	}
	o.Failed, o.Backoff, o.Again = maps.Clone(o.Failed), maps.Clone(o.Backoff), maps.Clone(o.Again)
	w.asking.facts = pod.Facts{Desired: d, Observed: o, Flights: maps.Clone(w.flights)}
	if d.Pod != nil {
		w.asking.facts.Told = new(w.status)
	}
	close(w.asking.done)
	w.asking = nil
}

// hush tells who asked that there is no next turn.
func (w *worker) hush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	if w.asking != nil {
		w.asking.err = errEnded
		close(w.asking.done)
		w.asking = nil
	}
}

// begin notes when an operation began. Nothing is kept of a pod that has none.
func (w *worker) begin(op pod.Op) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.flights == nil {
		w.flights = map[pod.Op]pod.Flight{}
	}
	w.flights[op] = pod.Flight{Since: time.Now()}
}

// reach notes how far the start of a container is.
func (w *worker) reach(op pod.Op, step pod.GateName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, under := w.flights[op]; under {
		w.flights[op] = pod.Flight{Step: step, Since: time.Now()}
	}
}

func (w *worker) landed(op pod.Op) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if delete(w.flights, op); len(w.flights) == 0 {
		w.flights = nil
	}
}

// inRow completes a failure by what came before it and by its kind.
func inRow(f, before pod.Failure, err error) pod.Failure {
	if f.Since = before.Since; before.Count == 0 {
		f.Since = f.At
	}
	var network interface{ NetworkError() bool }
	f.Network = errors.As(err, &network) && network.NetworkError()
	f.Away = away(err, f.Reason)
	return f
}

// away tells that the runtime was not there to be asked. Of a pull the same may be
// said of the registry, which is to be left alone for longer.
func away(err error, reason string) bool {
	switch reason {
	case pod.ReasonErrImagePull, pod.ReasonRegistryUnavailable, pod.ReasonSignatureValidationFailed:
		return false
	}
	var gone interface{ Unavailable() } // containerd/errdefs
	return errors.As(err, &gone)
}
