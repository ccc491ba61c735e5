package worker

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestSlots: so many at a time. While nothing moves, one that is held too long is
// lent, and the next after twice the time; what comes back late was lent already.
func TestSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, lease = 3, 5 * time.Second
		s, ctx := newSlots(n, lease), t.Context()
		begun := time.Now()
		var held []func(bool)
		for i, want := range []time.Duration{0, 0, 0, lease, 3 * lease, 7 * lease, 15 * lease} { // all of them hang
			back := taken(t, s)
			if took := time.Since(begun); took != want {
				t.Errorf("slot %d came after %s, want %s", i, took, want)
			}
			held = append(held, back)
		}
		if _, err := s.take(stopped(ctx)); err == nil {
			t.Error("there was one more")
		}
		for _, back := range held {
			back(true)
			back(true) // twice is once
		}
		for range n {
			taken(t, s)
		}
		if len(s.free) != 0 {
			t.Errorf("%d slots too many came back", len(s.free))
		}
	})
}

// One that hangs among others that come and go is lent, and costs them nothing.
func TestSlotOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 2
		s := newSlots(n, 5*time.Second)
		hangs := taken(t, s)
		for range 2 * n {
			back := taken(t, s)
			time.Sleep(2 * time.Second)
			back(true)
		}
		time.Sleep(2 * time.Second) // less than what is a standstill
		if len(s.free) != n {
			t.Errorf("%d of %d slots are free", len(s.free), n)
		}
		hangs(false)
		if len(s.free) != n {
			t.Errorf("it came back twice: %d are free", len(s.free))
		}
	})
}

// A node on which every start takes long is not given more and more to do at once.
func TestSlotsOfASlowNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 4
		s := newSlots(n, 5*time.Second)
		var wg sync.WaitGroup
		held, most := 0, 0
		var mu sync.Mutex
		for range 40 {
			wg.Go(func() {
				back := taken(t, s)
				mu.Lock()
				held++
				most = max(most, held)
				mu.Unlock()
				time.Sleep(20 * time.Second)
				mu.Lock()
				held--
				mu.Unlock()
				back(true)
			})
		}
		wg.Wait()
		if most > n+2 {
			t.Errorf("%d started at a time, more than %d", most, n+2)
		}
	})
}

// A slot that is given back in time is never lent.
func TestSlotInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(1, 5*time.Second)
		for range 10 {
			back := taken(t, s)
			time.Sleep(4 * time.Second)
			if len(s.free) != 0 {
				t.Error("it was lent")
			}
			back(true)
		}
		time.Sleep(time.Minute)
		if len(s.free) != 1 {
			t.Errorf("%d slots are free", len(s.free))
		}
	})
}

func taken(t *testing.T, s *slots) func(bool) {
	t.Helper()
	back, err := s.take(t.Context())
	if err != nil {
		t.Error(err)
		return func(bool) {}
	}
	return back
}

func stopped(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}
