package worker_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
	"nodeagent/internal/worker"
	"nodeagent/internal/worker/workertest"
)

// waking wakes the pod set from within each look at it, as a runtime may that
// holds a lock of its own over both.
type waking struct {
	*workertest.Daemon
	wake func(types.UID)
}

func (r *waking) Pods() []types.UID {
	r.wake("another")
	return append(r.Daemon.Pods(), "left")
}

func (r *waking) Observe(uid types.UID) pod.RuntimeState {
	r.wake(uid)
	return r.Daemon.Observe(uid)
}

// TestWakeFromWithin: a collaborator may wake the set from within any call of
// it. A set that called out with its own lock held would stand still for ever,
// and the node with it.
func TestWakeFromWithin(t *testing.T) {
	w := workertest.New(1, workertest.Faults{}, behaviour)
	w.PutConfigMap(settings("0"))
	d := w.Daemon()
	r := &waking{Daemon: d}
	swept := make(chan struct{})
	set, err := worker.New(worker.Config{
		Runtime: r, Sandboxes: d, Containers: d, Stops: d, Hooks: d, Images: d, Cgroups: d,
		Network: d, Dirs: d, Files: d, Volumes: d.Volumes(), Links: d, Objects: d, Probes: d, Sources: []string{"file"}, Logger: slog.New(slog.DiscardHandler),
		Stray: func(_ context.Context, keep func(types.UID) bool) error {
			keep("web")
			close(swept)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.wake = set.Wake
	d.Attach(set.Wake)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- set.Run(ctx) }()
	set.Offer(worker.Snapshot{Source: "file", Synced: true, Trusted: true,
		Pods: []pod.Desired{{Wish: pod.WishRun, Pod: podNamed("web")}}})
	for _, step := range []<-chan struct{}{swept, ready(ctx, set)} {
		select {
		case <-step:
		case <-time.After(time.Minute):
			t.Fatal("the pod set stands still")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// ready is closed when a pod's containers are ready.
func ready(ctx context.Context, set *worker.Set) <-chan struct{} {
	c := make(chan struct{})
	go func() {
		defer close(c)
		_ = set.Watch(ctx, func(p *corev1.Pod, _ bool) error {
			if allReady(p.Status) {
				return context.Canceled
			}
			return nil
		})
	}()
	return c
}
