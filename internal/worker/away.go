package worker

import (
	"context"
	"time"
)

// awaitRuntime waits until what runs is known; false when ctx ends before. It may
// take as long as containerd is away, which is rest and no hang.
func (s *Set) awaitRuntime(ctx context.Context, beat <-chan time.Time) bool {
	for {
		s.progress.Store(time.Now().UnixNano())
		select {
		case <-ctx.Done():
			return false
		case <-s.cfg.Runtime.Synced():
			return true
		case <-beat:
		}
	}
}
