package worker

import (
	"context"
	"sync"
	"time"
)

// slots bounds how many pods are being started or ended at a time, since a
// burst of a hundred is finished sooner in small groups than all at once. A
// slot that is held for longer than the lease is lent to somebody else, so that
// a hung runtime cannot keep the other pods waiting.
type slots struct {
	free  chan struct{}
	lease time.Duration
}

func newSlots(n int, lease time.Duration) *slots {
	s := &slots{free: make(chan struct{}, n), lease: lease}
	for range n {
		s.free <- struct{}{}
	}
	return s
}

// take waits for a slot; the returned function gives it back.
func (s *slots) take(ctx context.Context) (func(), error) {
	select {
	case <-s.free:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	var once sync.Once
	back := func() { once.Do(func() { s.free <- struct{}{} }) }
	timer := time.AfterFunc(s.lease, back)
	return func() { timer.Stop(); back() }, nil
}
