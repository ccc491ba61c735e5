package worker_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nodeagent/internal/pod"
	"nodeagent/internal/worker/workertest"
)

// TestLeavingPodEndsOnce: the API server lists a deleted pod until somebody confirms
// its end. It is ended, told to be gone once, and not begun again meanwhile; a daemon
// that comes later tells it once more, though nothing is left of the pod.
func TestLeavingPodEndsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := workertest.New(1, workertest.Faults{}, behaviour)
		g := &gate{t: t, w: w}
		web := podNamed("web")
		leaving := []pod.Desired{{Wish: pod.WishAbsent, Pod: web, Grace: new(int64(1))}}
		g.start()
		gone := g.watchEnds()
		g.offer("file", nil, true, true)
		g.offer("api", []pod.Desired{{Wish: pod.WishRun, Pod: web}}, true, true)
		if len(w.Left()) == 0 {
			t.Fatal("nothing runs: the test proves nothing")
		}
		for range 3 {
			g.offer("api", leaving, true, true)
			g.unchanged("the pod is to go", nil)
		}
		if got := gone(); !slices.Equal(got, []string{"web"}) {
			t.Errorf("told to be gone: %v", got)
		}
		g.stop()

		g.start()
		gone = g.watchEnds()
		g.offer("file", nil, true, true)
		g.offer("api", leaving, true, true)
		if got := gone(); !slices.Equal(got, []string{"web"}) {
			t.Errorf("a later daemon told to be gone: %v", got)
		}
		g.offer("api", []pod.Desired{{Wish: pod.WishRun, Pod: web}}, true, true)
		if len(w.Left()) == 0 {
			t.Error("a pod that is wanted again does not come back")
		}
		g.stop()
	})
}

// watchEnds collects the names of the pods that are told to be gone, until the set
// ends; the function it returns gives them.
func (g *gate) watchEnds() func() []string {
	ctx, cancel := context.WithCancel(context.Background())
	var gone []string
	done := make(chan error, 1)
	go func() {
		done <- g.set.Watch(ctx, func(p *corev1.Pod, ended bool) error {
			if ended {
				gone = append(gone, p.Name)
			}
			return nil
		})
	}()
	stop := g.stop
	g.stop = func() {
		cancel()
		<-done
		stop()
	}
	return func() []string {
		synctest.Wait()
		return gone
	}
}

// TestStatusGoesOn: what the API server was told of a pod by an earlier daemon is
// where its status goes on, and a pod that had ended there begins nothing here.
func TestStatusGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := workertest.New(1, workertest.Faults{}, behaviour)
		g := &gate{t: t, w: w}
		over, gated := podNamed("job"), podNamed("web")
		started := metav1.Now()
		over.Status = corev1.PodStatus{Phase: corev1.PodFailed, Reason: "OutOfcpu", Message: "Pod was rejected: x", StartTime: &started,
			Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}}}
		gated.Status.Conditions = []corev1.PodCondition{{Type: "example.com/gate", Status: corev1.ConditionTrue}}
		g.start()
		g.offer("file", nil, true, true)
		g.offer("api", []pod.Desired{{Wish: pod.WishRun, Pod: over}, {Wish: pod.WishRun, Pod: gated}}, true, true)
		for _, p := range g.set.Pods() {
			switch p.Name {
			case "job":
				if p.Status.Phase != corev1.PodFailed || p.Status.Reason != "OutOfcpu" || !p.Status.StartTime.Equal(&started) {
					t.Errorf("of a pod that is over: %+v", p.Status)
				}
			case "web":
				if !slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == "example.com/gate" }) {
					t.Errorf("what somebody else told of the pod is lost: %+v", p.Status.Conditions)
				}
			}
		}
		if n := len(g.set.Pods()); n != 2 {
			t.Errorf("%d pods are told of", n)
		}
		if w.Started("job", "once") > 0 {
			t.Error("a pod that is over was begun")
		}
		g.stop()
	})
}
