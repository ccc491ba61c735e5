package worker

import (
	"errors"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"nodeagent/internal/pod"
)

// absent tells that something failed for want of an object, or of a key in one:
// trying again helps only when the object has changed.
func absent(err error) bool {
	var lacks interface{ Absent() bool }
	return apierrors.IsNotFound(err) || errors.As(err, &lacks) && lacks.Absent()
}

// objectChanged notes a change of an object, if the pod refers to it.
func (w *worker) objectChanged(ref pod.ObjectRef) {
	w.mu.Lock()
	refers := w.desired.Pod != nil && slices.Contains(pod.References(w.desired.Pod), ref)
	if refers {
		w.objects++
	}
	w.mu.Unlock()
	if refers {
		w.wake()
	}
}

// answerObjects forgets what failed for want of an object since one changed. A
// step that is in flight meanwhile has perhaps not seen the change: see finish.
func (w *worker) answerObjects() {
	w.mu.Lock()
	objects := w.objects
	w.mu.Unlock()
	if objects == w.answered {
		return
	}
	w.answered = objects
	for op, f := range w.failed {
		if f.Absent {
			delete(w.failed, op)
		}
	}
}
