package worker_test

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
	"nodeagent/internal/worker"
	"nodeagent/internal/worker/workertest"
)

// TestSourcesGate: a pod is removed only when every source has delivered, and
// one that no source of this process ever listed only when all may be trusted.
// Otherwise each start of the daemon would end the node's pods.
func TestSourcesGate(t *testing.T) {
	web := []pod.Desired{{Wish: pod.WishRun, Pod: podNamed("web")}}
	synctest.Test(t, func(t *testing.T) {
		w := workertest.New(1, workertest.Faults{}, behaviour)
		g := &gate{t: t, w: w}
		g.start()
		g.offer("file", web, true, true)
		g.offer("api", nil, false, false)
		running := w.Left()
		if len(running) == 0 {
			t.Fatal("nothing runs: the test proves nothing")
		}
		g.offer("file", nil, true, true)
		g.unchanged("one source drops the pod while another has not synced", running)
		g.stop()

		g.start() // knows the pod from the runtime alone
		g.unchanged("no source has delivered", running)
		g.offer("file", nil, true, true)
		g.unchanged("one source has delivered", running)
		g.offer("api", nil, true, false)
		g.unchanged("one source cannot be trusted", running)
		g.offer("api", nil, true, true)
		g.unchanged("nobody wants the pod", nil)
		g.stop()
	})
}

// gate is a pod set with two sources.
type gate struct {
	t    *testing.T
	w    *workertest.World
	set  *worker.Set
	stop func()
}

func (g *gate) start() {
	g.t.Helper()
	d := g.w.Daemon()
	set, err := worker.New(worker.Config{
		Runtime: d, Sandboxes: d, Containers: d, Stops: d, Hooks: d, Images: d, Cgroups: d,
		Network: d, Dirs: d, Files: d, Volumes: d.Volumes(), Links: d, Objects: d, Probes: d, Stray: d.Stray,
		Sources: []string{"file", "api"}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		g.t.Fatal(err)
	}
	d.Attach(set.Wake)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- set.Run(ctx) }()
	g.set = set
	g.stop = func() {
		cancel()
		if err := <-done; err != nil {
			g.t.Error(err)
		}
		d.Kill()
	}
}

// offer hands over a snapshot and waits until all has settled.
func (g *gate) offer(source string, pods []pod.Desired, synced, trusted bool) {
	g.set.Offer(worker.Snapshot{Source: source, Pods: pods, Synced: synced, Trusted: trusted})
	time.Sleep(settling)
}

func (g *gate) unchanged(when string, want []string) {
	g.t.Helper()
	time.Sleep(settling)
	if got := g.w.Left(); !slices.Equal(got, want) {
		g.t.Errorf("when %s there is %v, want %v", when, got, want)
	}
}

// TestGoneIsTold: a pod that its source wants gone and of which the runtime holds
// nothing (an earlier daemon ended it) is told to be gone, once, although its source
// goes on listing it; and again to who begins to watch later.
func TestGoneIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{t: t, w: workertest.New(1, workertest.Faults{}, behaviour)}
		g.start()
		leaving := []pod.Desired{{Wish: pod.WishAbsent, Pod: podNamed("web")}}
		told := 0
		watch := func() context.CancelFunc {
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				_ = g.set.Watch(ctx, func(p *corev1.Pod, gone bool) error {
					if gone && p.Name == "web" {
						told++
					}
					return nil
				})
			}()
			synctest.Wait()
			return cancel
		}
		stop := watch()
		g.offer("file", nil, true, true)
		g.offer("api", leaving, true, true) // a set that took it up again and again would never rest
		stop()
		synctest.Wait()
		if told != 1 {
			t.Errorf("the end of the pod was told %d times, want once", told)
		}
		stop = watch()
		stop()
		synctest.Wait()
		if told != 2 {
			t.Error("who began to watch later was not told that the pod is gone")
		}
		g.offer("api", nil, true, true)
		stop = watch()
		stop()
		synctest.Wait()
		if told != 2 {
			t.Error("the end of a pod is kept for ever")
		}
		g.stop()
	})
}
