package worker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
	"nodeagent/internal/worker"
)

// explain asks the pod set about a pod as it is wanted now.
func (s *scene) explain(uid types.UID) (pod.Facts, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
	defer cancel()
	return s.set.Explain(ctx, uid)
}

// TestExplain: the pod set tells what a worker decides by, of a pod that has to wait
// for another, and of one that is gone.
func TestExplain(t *testing.T) {
	live(t, func(s *scene) {
		s.want("web")
		time.Sleep(time.Minute)
		uid := podNamed("web").UID
		f, err := s.explain(uid)
		if err != nil || f.Told == nil || f.Desired.Pod == nil || !f.Observed.Prepared || len(f.Observed.Containers) == 0 {
			t.Fatalf("of a pod that runs it tells %+v, %v", f, err)
		}
		if x := pod.Explain(f, time.Now()); x.Blocks != nil {
			t.Errorf("it runs, and %+v blocks", x.Blocks)
		}
		if all := s.set.Awaited(); len(all) > 0 {
			t.Errorf("%v is awaited", all)
		}
		f.Observed.Failed[pod.Op{Kind: pod.Cleanup}] = pod.Failure{} // it is the asker's
		if f, err = s.explain(uid); err != nil || len(f.Observed.Failed) > 0 {
			t.Errorf("what an asker was told is the worker's own: %+v, %v", f.Observed.Failed, err)
		}
		later := podNamed("web")
		later.UID = "later"
		snap := worker.Snapshot{Source: "file", Synced: true, Trusted: true, Pods: []pod.Desired{{Wish: pod.WishRun, Pod: later}}}
		s.set.Offer(snap)
		time.Sleep(time.Millisecond)
		f, err = s.explain("later")
		if err != nil || f.Behind != uid || len(s.set.Awaited()) != 1 {
			t.Errorf("of a pod behind another it tells %+v, %v", f, err)
		}
		if f, err = s.explain(uid); err != nil || f.Desired.Wish != pod.WishAbsent || len(f.Flights) == 0 {
			t.Errorf("of a pod that goes it tells %+v, %v", f, err)
		}
		for _, since := range f.Flights {
			if since.Since.IsZero() {
				t.Errorf("since when something is under way is not told: %+v", f.Flights)
			}
		}
		s.want()
		time.Sleep(settling)
		if _, err := s.explain(uid); !errors.Is(err, worker.ErrUnknown) {
			t.Errorf("of a pod that is gone it tells %v", err)
		}
	})
}

// TestExplainManyAskers: all who ask at a time are answered by one turn.
func TestExplainManyAskers(t *testing.T) {
	live(t, func(s *scene) {
		s.want("web")
		time.Sleep(time.Minute)
		done := make(chan error)
		for range 20 {
			go func() {
				_, err := s.explain(podNamed("web").UID)
				done <- err
			}()
		}
		for range 20 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}
