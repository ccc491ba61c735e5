package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"nodeagent/test/bed"
)

// sight is when a pod was first seen to be so.
type sight struct{ ready, ended, gone time.Time }

// watcher notes when pods are ready, have ended, and are gone.
type watcher struct {
	mu      sync.Mutex
	pods    map[string]*sight
	changed chan struct{} // closed and replaced at each change
	failed  error
}

func newWatcher() *watcher {
	return &watcher{pods: map[string]*sight{}, changed: make(chan struct{})}
}

// watch watches the API server until ctx ends. The API server ends the watch of who does
// not read as fast as a hundred pods change, which on a busy machine is anybody: the next
// one begins where that one stopped, so that nothing is missed.
func watch(ctx context.Context, core *rest.RESTClient) *watcher {
	w := newWatcher()
	go func() { // ends with ctx, or at an error
		from := ""
		for ctx.Err() == nil {
			var err error
			if from, err = w.follow(ctx, core, from); err != nil {
				w.note("", nil, false, fmt.Errorf("watch the pods: %w", err))
				return
			}
		}
	}()
	return w
}

// follow watches from a version of the pods on ("": as they are), and returns that
// which was seen last.
func (w *watcher) follow(ctx context.Context, core *rest.RESTClient, from string) (string, error) {
	events, err := core.Get().Namespace(metav1.NamespaceDefault).Resource("pods").
		Param("watch", "true").Param("timeoutSeconds", "7200").Param("resourceVersion", from).Watch(ctx)
	if err != nil {
		return from, err
	}
	defer events.Stop()
	for e := range events.ResultChan() {
		p, ok := e.Object.(*corev1.Pod)
		if !ok {
			return from, fmt.Errorf("%s %v", e.Type, e.Object)
		}
		from = p.ResourceVersion
		w.note(p.Name, p, e.Type == apiwatch.Deleted, nil)
	}
	return from, nil
}

// watchAgent watches what the daemon says by its socket until ctx ends.
func watchAgent(ctx context.Context, a *bed.AgentProcess) *watcher {
	w := newWatcher()
	go func() {
		for c, err := range a.Watch(ctx) {
			if err != nil {
				w.note("", nil, false, err)
				return
			}
			w.note(c.Pod.Name, c.Pod, c.Gone, nil)
		}
	}()
	return w
}

func (w *watcher) note(name string, p *corev1.Pod, gone bool, err error) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failed = err
	} else {
		s := w.pods[name]
		if s == nil {
			s = &sight{}
			w.pods[name] = s
		}
		first(&s.gone, gone, now)
		first(&s.ready, !gone && bed.Ready(p), now)
		first(&s.ended, p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed, now)
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

func first(at *time.Time, is bool, now time.Time) {
	if is && at.IsZero() {
		*at = now
	}
}

// of is what was seen of a pod.
func (w *watcher) of(name string) sight {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.pods[name]; s != nil {
		return *s
	}
	return sight{}
}

// wait waits until something was seen of each pod, and returns when it was of the
// last.
func (w *watcher) wait(ctx context.Context, names []string, what string, of func(sight) time.Time) (time.Time, error) {
	for {
		w.mu.Lock()
		n, last := 0, time.Time{}
		for _, name := range names {
			if s := w.pods[name]; s != nil && !of(*s).IsZero() {
				n++
				if of(*s).After(last) {
					last = of(*s)
				}
			}
		}
		failed, changed := w.failed, w.changed
		w.mu.Unlock()
		if n == len(names) {
			return last, nil
		}
		if failed != nil {
			return last, failed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return last, fmt.Errorf("wait until %d pods are %s (%d are): %w", len(names), what, n, ctx.Err())
		}
	}
}

func ready(s sight) time.Time { return s.ready }
func ended(s sight) time.Time { return s.ended }
func gone(s sight) time.Time  { return s.gone }
