package status

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Untold is something that the API server does not take, or does not answer.
type Untold struct {
	Pod   types.NamespacedName
	UID   types.UID // "" of a mirror pod
	What  string    // what is asked of it
	Error string
	Since time.Time
	Next  time.Time // when it is asked again, at the earliest
}

// Untold lists what waits because the latest request failed, by name. It may be called
// from any goroutine and never blocks.
func (w *Writer) Untold() []Untold {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]Untold, 0, len(w.untold))
	for _, u := range w.untold {
		all = append(all, u)
	}
	slices.SortFunc(all, func(x, y Untold) int {
		return cmp.Or(cmp.Compare(x.Pod.Namespace, y.Pod.Namespace), cmp.Compare(x.Pod.Name, y.Pod.Name), cmp.Compare(x.UID, y.UID))
	})
	return all
}

// show keeps what Untold lists up to date with a record whose request has ended.
func (w *Writer) show(r *record, res result, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if res.err == nil {
		delete(w.untold, r.key)
		return
	}
	u := Untold{Pod: r.target(), UID: r.key.uid, What: string(res.task.step), Error: res.err.Error(), Since: now, Next: r.retryAt}
	if before, known := w.untold[r.key]; known {
		u.Since = before.Since
	}
	w.untold[r.key] = u
}
