package worker_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/internal/pod"
	"nodeagent/internal/worker"
	"nodeagent/internal/worker/workertest"
)

// away is a runtime that is not there yet.
type away struct {
	*workertest.Daemon
	synced chan struct{}
}

func (r *away) Synced() <-chan struct{} { return r.synced }

// TestRuntimeAway: a pod set that waits for its runtime makes progress, however
// long it takes, and touches nothing: the watchdog must not end a daemon because
// containerd is away.
func TestRuntimeAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := workertest.New(1, workertest.Faults{}, behaviour)
		w.PutConfigMap(settings("0"))
		d := w.Daemon()
		r := &away{Daemon: d, synced: make(chan struct{})}
		set, err := worker.New(worker.Config{
			Runtime: r, Sandboxes: d, Containers: d, Stops: d, Hooks: d, Images: d, Cgroups: d,
			Network: d, Dirs: d, Files: d, Volumes: d.Volumes(), Links: d, Objects: d, Probes: d, Sources: []string{"file"}, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		d.Attach(set.Wake)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- set.Run(ctx) }()
		set.Offer(worker.Snapshot{Source: "file", Synced: true, Trusted: true,
			Pods: []pod.Desired{{Wish: pod.WishRun, Pod: podNamed("web")}}})
		for range 60 {
			time.Sleep(time.Minute)
			synctest.Wait()
			if since := time.Since(set.Progress()); since > 10*time.Second {
				t.Fatalf("no progress for %s while the runtime is away", since)
			}
		}
		if left := w.Left(); len(left) > 0 {
			t.Errorf("acted before it knew what runs: %v", left)
		}
		close(r.synced)
		<-ready(ctx, set)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
