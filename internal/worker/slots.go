package worker

import (
	"context"
	"sync"
	"time"
)

// slots bounds how many pods are being started or ended at a time, since a
// burst of a hundred is finished sooner in small groups than all at once. A start
// that hangs cannot keep the other pods waiting, so a slot that is held for longer
// than the lease is lent to somebody else: at once if twice as many as there are
// slots have come and gone meanwhile, else when nothing has moved for longer than
// starts take here, and the next one only after twice that time. A node that is
// merely slow is thus not given more and more to do at once, which would make all
// of them miss their deadlines.
type slots struct {
	free  chan struct{}
	lease time.Duration

	mu    sync.Mutex
	over  int           // how many were given back
	usual time.Duration // how long the last one that came to its end had taken
	moved time.Time     // when the last one was taken, given back or lent
	calm  time.Duration // how long after that one is lent
}

// slot is one that is held.
type slot struct {
	of    *slots
	since time.Time
	over  int // of the slots when it was taken

	once    sync.Once
	lent    bool
	overdue *time.Timer
}

func newSlots(n int, lease time.Duration) *slots {
	s := &slots{free: make(chan struct{}, n), lease: lease, calm: lease}
	for range n {
		s.free <- struct{}{}
	}
	return s
}

// take waits for a slot; the returned function gives it back, and says whether
// what it was for has worked.
func (s *slots) take(ctx context.Context) (func(worked bool), error) {
	select {
	case <-s.free:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	s.mu.Lock() // overdue is set before it is used
	defer s.mu.Unlock()
	l := &slot{of: s, since: time.Now(), over: s.over}
	s.moved = l.since
	l.overdue = time.AfterFunc(s.lease, l.late)
	return l.back, nil
}

func (l *slot) back(worked bool) {
	l.once.Do(func() {
		l.overdue.Stop()
		if !l.of.gaveBack(l, worked, time.Now()) {
			l.of.free <- struct{}{}
		}
	})
}

// late lends the slot, or looks again when it may be time.
func (l *slot) late() {
	switch wait, lend := l.of.mayLend(l, time.Now()); {
	case lend:
		l.of.free <- struct{}{}
	case wait > 0:
		l.overdue.Reset(min(wait, l.of.lease))
	}
}

// gaveBack notes the end of what a slot was for, and tells whether it was lent.
func (s *slots) gaveBack(l *slot, worked bool, now time.Time) (lent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over++
	s.moved = now
	if worked { // one that failed may have hung until its deadline
		s.usual = now.Sub(l.since)
	}
	s.calm = max(s.lease, 2*s.usual)
	lent, l.lent = l.lent, true
	return lent
}

// mayLend notes that a slot is lent now, or says how long that has to wait; neither
// if it was given back.
func (s *slots) mayLend(l *slot, now time.Time) (wait time.Duration, lend bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.lent {
		return 0, false
	}
	if overtaken := s.over-l.over >= 2*cap(s.free); !overtaken {
		if wait = s.moved.Add(s.calm).Sub(now); wait > 0 {
			return wait, false
		}
		s.calm *= 2
	}
	l.lent, s.moved = true, now
	return 0, true
}
