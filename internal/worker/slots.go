package worker

import (
	"context"
	"sync"
	"time"
)

// slots bounds how many pods are being started or ended at a time, since a
// burst of a hundred is finished sooner in small groups than all at once. Of the
// slots that are held for longer than the lease one is lent to somebody else,
// and another each time that a lease has passed: a hung runtime cannot keep the
// other pods waiting, and a node that is merely slow is not given more and more
// to do at once, which would make all of them miss their deadlines.
type slots struct {
	free  chan struct{}
	lease time.Duration

	mu   sync.Mutex
	lent time.Time // when the last one was
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
	var overdue *time.Timer
	s.mu.Lock() // overdue is set before it is used
	defer s.mu.Unlock()
	overdue = time.AfterFunc(s.lease, func() {
		if wait := s.mayLend(time.Now()); wait > 0 {
			overdue.Reset(wait)
			return
		}
		back()
	})
	return func() { overdue.Stop(); back() }, nil
}

// mayLend notes that a slot is lent now, or says how long that has to wait.
func (s *slots) mayLend(now time.Time) (wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if wait = s.lent.Add(s.lease).Sub(now); wait <= 0 {
		s.lent = now
	}
	return wait
}
