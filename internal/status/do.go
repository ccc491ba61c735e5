package status

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
)

// deadline is how long a request may take.
const deadline = 10 * time.Second

// result is how a request ended.
type result struct {
	record *record
	task   task
	pod    *corev1.Pod // what the API server has now
	err    error
	begun  time.Time
}

// start sends the record's next request, when its turn comes, from a goroutine of its
// own, which ends by the deadline and delivers a result or sees the daemon end.
func (w *Writer) start(ctx context.Context, tasks *sync.WaitGroup, r *record, now time.Time) {
	t, name := r.next, r.target()
	r.spend(now)
	if t.haste {
		w.busy = now.Add(lull)
		w.cfg.Yield(w.busy)
	}
	r.flying, r.since = true, time.Time{}
	w.flying++
	tasks.Go(func() {
		if w.cfg.Rate.Wait(ctx) != nil {
			return // the daemon ends
		}
		bounded, cancel := context.WithTimeout(ctx, deadline)
		defer cancel()
		p, err := w.do(bounded, t, name)
		select {
		case w.done <- result{r, t, p, err, now}:
		case <-ctx.Done():
		}
	})
}

func (w *Writer) do(ctx context.Context, t task, name types.NamespacedName) (*corev1.Pod, error) {
	switch t.step {
	case patch:
		return w.cfg.API.PatchStatus(ctx, name, t.patch)
	case create:
		return w.cfg.API.Create(ctx, t.pod)
	case remove:
		return nil, w.cfg.API.Delete(ctx, name, t.pod.UID)
	}
	return w.cfg.API.Get(ctx, name)
}

// finish takes the end of a request into account.
func (w *Writer) finish(res result, now time.Time) {
	r := res.record
	r.flying, r.stale = false, true
	w.flying--
	w.outage.note(res.err, res.begun, now)
	if res.err == nil {
		res.err = r.succeed(res, now)
	} else if r.expected(res, now) {
		res.err = nil
	}
	if res.err == nil {
		if res.task.step != look { // which may have been half of a failure
			r.fails, r.said, r.retryAt = 0, "", time.Time{}
		}
		w.show(r, res, now)
		return
	}
	r.retryAt = now.Add(max(backoff(r.fails, leastBackoff, mostBackoff), asked(res.err)))
	r.fails++
	w.show(r, res, now)
	if text := res.err.Error(); text != r.said {
		r.said = text
		w.cfg.Logger.Warn("retry later", "action", string(res.task.step), "pod", r.target().String(), "podUID", r.key.uid, "err", res.err)
	}
}

// How long a pod waits whose request failed.
const (
	leastBackoff = 200 * time.Millisecond
	mostBackoff  = time.Minute
)

var errTaken = errors.New("a pod that is no mirror pod has the name of a static pod; delete it, or rename the static pod")

// succeed notes what the API server has now.
func (r *record) succeed(res result, now time.Time) error {
	switch res.task.step {
	case remove:
		r.bury(res.task.pod.UID, now)
	case patch:
		// What it lacks although just that was sent it does not take. Anything else
		// somebody wrote meanwhile.
		left := difference(res.pod.UID, &res.pod.Status, &res.task.status)
		if !bytes.Equal(left, res.task.patch) && !bytes.Equal(left, r.skip) {
			left = nil
		}
		r.skip, r.skipUntil = left, time.Time{}
		r.answer(res.pod, now)
	case create:
		r.answer(res.pod, now)
	case look:
		switch {
		case r.key.uid != "" && res.pod.UID != r.key.uid:
			r.bury(r.key.uid, now) // another pod has its name
		case r.key.uid == "" && !isMirror(res.pod):
			r.bury("", now)
			return errTaken
		default:
			r.answer(res.pod, now)
		}
	}
	return nil
}

// again is when a status that the API server refused is tried once more.
const again = 5 * time.Minute

// expected acts on errors that are answers. What is refused as it is stays said and
// is counted as a failure, but a final delete does not wait for it.
func (r *record) expected(res result, now time.Time) bool {
	switch step := res.task.step; {
	case apierrors.IsNotFound(res.err) && step == look:
		r.bury(r.key.uid, now)
		return true
	case apierrors.IsNotFound(res.err) && step != create:
		r.bury(res.task.pod.UID, now)
		return true
	case (apierrors.IsConflict(res.err) || apierrors.IsAlreadyExists(res.err)) && step != look:
		r.look = true // somebody has the name, or was quicker
	case refused(res.err) && step == patch:
		r.skip, r.skipUntil = res.task.patch, now.Add(again)
	}
	return false
}
