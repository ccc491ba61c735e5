package worker_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
	"nodeagent/internal/worker"
	"nodeagent/internal/worker/workertest"
)

// times keeps what it is told.
type times struct {
	mu         sync.Mutex
	began, ran []time.Duration
	steps      [worker.StepKill + 1]int
	starts     map[string]int // by reason
}

func (f *times) Began(waited time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.began = append(f.began, waited)
}
func (f *times) Ran(took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ran = append(f.ran, took)
}
func (f *times) Step(kind worker.StepKind, _ time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.steps[kind]++
}

func (f *times) Started(_ *corev1.Pod, _, reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.starts == nil {
		f.starts = map[string]int{}
	}
	f.starts[reason]++
}

// TestFigures: of a new pod is told once when it began and when it ran, counted from
// when it was seen, also while it waits for another of its name; of one that an earlier
// daemon started, neither.
func TestFigures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := workertest.New(1, workertest.Faults{}, behaviour)
		offer := func(f *times, during time.Duration, snapshots ...[]pod.Desired) {
			d := w.Daemon()
			set, err := worker.New(worker.Config{
				Runtime: d, Sandboxes: d, Containers: d, Stops: d, Hooks: d, Images: d, Cgroups: d, Figures: f,
				Network: d, Dirs: d, Files: d, Volumes: d.Volumes(), Links: d, Objects: d, Probes: d, Stray: d.Stray,
				Sources: []string{"file"}, Logger: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				t.Fatal(err)
			}
			d.Attach(set.Wake)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- set.Run(ctx) }()
			for _, pods := range snapshots {
				set.Offer(worker.Snapshot{Source: "file", Synced: true, Trusted: true, Pods: pods})
				time.Sleep(during)
				w.KillContainer("hardy", "deaf") // it runs again, and is told of as before
				time.Sleep(during)
			}
			cancel()
			<-done
			d.Kill()
		}
		one, next := podNamed("hardy"), podNamed("hardy")
		next.UID = "next"
		run := func(all ...pod.Desired) []pod.Desired { return all }
		f := &times{}
		offer(f, 5*time.Minute, run(pod.Desired{Wish: pod.WishRun, Pod: one}))
		if len(f.began) != 1 || len(f.ran) != 1 || f.ran[0] <= 0 || f.ran[0] < f.began[0] || f.steps[worker.StepCreate] < 2 || f.steps[worker.StepKill] != 0 || f.starts[""] < 2 {
			t.Errorf("of a new pod was told %+v", f)
		}
		f = &times{}
		offer(f, 5*time.Minute, run(pod.Desired{Wish: pod.WishRun, Pod: one}))
		if len(f.began) != 0 || len(f.ran) != 0 || f.steps[worker.StepCreate] != 0 {
			t.Errorf("of a pod of an earlier daemon was told %+v", f)
		}
		f = &times{}
		offer(f, 5*time.Minute, run(pod.Desired{Wish: pod.WishRun, Pod: next}))
		if len(f.began) != 1 || f.began[0] <= 0 || len(f.ran) != 1 || f.ran[0] <= f.began[0] || f.steps[worker.StepKill] < 2 {
			t.Errorf("of a pod that waited for the end of another was told %+v", f)
		}
	})
}
