package worker_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
	"nodeagent/internal/worker/workertest"
)

// TestNodeEndsPods: a pod that the node ends is stopped in the time that it is given,
// fails, lets go of all but its records, and does not begin again; another one goes on.
// Who waits for its end waits until its volumes are gone, and for one that is stuck no
// longer than he wants to.
func TestNodeEndsPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := workertest.New(1, workertest.Faults{}, behaviour)
		g := &gate{t: t, w: w}
		deaf := podNamed("job")
		deaf.Name, deaf.UID, deaf.Spec.RestartPolicy = "deaf", "deaf", corev1.RestartPolicyAlways
		deaf.Spec.TerminationGracePeriodSeconds = new(int64(3600))
		deaf.Spec.Containers = containers("deaf")
		wanted := []pod.Desired{{Wish: pod.WishRun, Pod: podNamed("web")}, {Wish: pod.WishRun, Pod: deaf}}
		g.start()
		defer func() { g.stop() }()
		g.offer("file", nil, true, true)
		g.offer("api", wanted, true, true)

		end := &pod.Ending{Reason: "Terminated", Message: "why", Grace: 20}
		begun := time.Now()
		g.set.OfferEndings(map[types.UID]*pod.Ending{"web": end})
		if err := g.set.AwaitEnded(t.Context(), []types.UID{"web", "unknown"}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("a pod that obeys ended after %v", took)
		}
		of := func(name string) (phase corev1.PodPhase, reason string) {
			for _, p := range g.set.Pods() {
				if p.Name == name {
					return p.Status.Phase, p.Status.Reason
				}
			}
			return "", ""
		}
		if phase, reason := of("web"); phase != corev1.PodFailed || reason != "Terminated" {
			t.Errorf("it is told as %s, %s", phase, reason)
		}
		if phase, _ := of("deaf"); phase != corev1.PodRunning {
			t.Errorf("the other one is %s", phase)
		}
		if left := g.w.Left(); slices.Contains(left, "volumes web") || slices.Contains(left, "cgroup web") {
			t.Errorf("of it is left %v", left)
		}
		starts := w.Started("web", "app")
		g.offer("api", wanted, true, true)
		time.Sleep(time.Hour)
		if n := w.Started("web", "app"); n != starts {
			t.Error("it began again")
		}

		begun = time.Now()
		g.set.OfferEndings(map[types.UID]*pod.Ending{"web": end, "deaf": {Reason: "Terminated", Grace: 30}})
		short, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := g.set.AwaitEnded(short, []types.UID{"deaf"}); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 pods") {
			t.Errorf("after 5 s a pod that is deaf is told as %v", err)
		}
		if err := g.set.AwaitEnded(t.Context(), []types.UID{"web", "deaf"}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took < 30*time.Second || took > 40*time.Second {
			t.Errorf("a deaf pod that had 30 s ended after %v", took)
		}
	})
}
