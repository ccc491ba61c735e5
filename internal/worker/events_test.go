package worker_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
	"nodeagent/internal/worker"
	"nodeagent/internal/worker/workertest"
)

// told keeps what it is told, by pod and container.
type told struct {
	mu  sync.Mutex
	all map[string]bool
}

func (e *told) Pod(p *corev1.Pod, container, kind, reason, message string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all[strings.TrimSpace(fmt.Sprintf("%s/%s %s %s: %s", p.Name, container, kind, reason, message))] = true
}

// TestEvents: a pod's life is told in kubelet's words.
func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := workertest.New(1, workertest.Faults{}, behaviour)
		d := w.Daemon()
		e := &told{all: map[string]bool{}}
		set, err := worker.New(worker.Config{
			Runtime: d, Sandboxes: d, Containers: d, Stops: d, Hooks: d, Images: d, Cgroups: d, Events: e,
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
		flaky, refused, unbuilt := podNamed("flaky"), podNamed("web"), podNamed("hardy")
		wanted := []pod.Desired{{Wish: pod.WishRun, Pod: flaky}, {Wish: pod.WishRun, Pod: refused, Rejected: &pod.Rejection{Reason: "NodeAffinity", Message: "no"}},
			{Wish: pod.WishRun, Pod: unbuilt, Unbuilt: &pod.Rejection{Reason: pod.ReasonUnsupported, Message: "spec.hostUsers"}}}
		set.Offer(worker.Snapshot{Source: "file", Synced: true, Trusted: true, Pods: wanted})
		time.Sleep(5 * time.Minute)
		set.Offer(worker.Snapshot{Source: "file", Synced: true, Trusted: true})
		time.Sleep(5 * time.Minute)
		cancel()
		<-done
		c := flaky.Spec.Containers[0].Name
		for _, want := range []string{
			"flaky/" + c + " Normal Pulled: Container image", "flaky/" + c + " Normal Created: Container created", "flaky/" + c + " Normal Started: Container started",
			"flaky/" + c + " Warning BackOff: Back-off restarting failed container " + c + " in pod flaky_default(" + string(flaky.UID) + ")",
			"flaky/" + c + " Normal Killing: Stopping container " + c, "web/ Warning NodeAffinity: ", "hardy/ Warning UnsupportedField: spec.hostUsers",
		} {
			found := false
			for got := range e.all {
				found = found || strings.HasPrefix(got, want)
			}
			if !found {
				t.Errorf("nobody was told %q, but %v", want, slices.Sorted(maps.Keys(e.all)))
			}
		}
	})
}
