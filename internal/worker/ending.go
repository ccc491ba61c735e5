package worker

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// OfferEndings says which pods the node ends before their time, and why; the latest
// counts. A pod that has ended stays so, also when it is not among them any more. It
// never blocks.
func (s *Set) OfferEndings(all map[types.UID]*pod.Ending) {
	s.mu.Lock()
	s.endings = all
	s.mu.Unlock()
	s.wakeSet()
}

// AwaitEnded waits until nothing of the pods, which the node ends, runs and their
// volumes are gone.
func (s *Set) AwaitEnded(ctx context.Context, uids []types.UID) error {
	for {
		s.mu.Lock()
		held := 0
		for _, uid := range uids {
			if w := s.workers[uid]; w != nil && !w.rests {
				held++
			}
		}
		news := s.rested
		s.mu.Unlock()
		if held == 0 {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("wait until %d pods have ended: %w", held, context.Cause(ctx))
		}
	}
}

// rest notes whether there is nothing left to do for a pod that the node ends.
func (w *worker) rest(d pod.Desired, steps pod.Steps) {
	rests := d.Ended != nil && len(steps.Actions) == 0 && len(w.running) == 0 && steps.WakeAt.IsZero()
	w.set.mu.Lock()
	defer w.set.mu.Unlock()
	if news := rests && !w.rests; news {
		w.set.tellRested()
	}
	w.rests = rests
}

// tellRested wakes who waits for pods to have ended. Called with mu held.
func (s *Set) tellRested() {
	close(s.rested)
	s.rested = make(chan struct{})
}
