package worker

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestSlots: so many at a time; one that is held too long is lent, one a lease;
// what comes back late was lent already.
func TestSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, lease = 3, 5 * time.Second
		s, ctx := newSlots(n, lease), t.Context()
		begun := time.Now()
		var held []func()
		for i := range n + 4 { // all of them hang
			back, err := s.take(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if want := time.Duration(max(0, i-n+1)) * lease; time.Since(begun) != want {
				t.Errorf("slot %d came after %s, want %s", i, time.Since(begun), want)
			}
			held = append(held, back)
		}
		if _, err := s.take(stopped(ctx)); err == nil {
			t.Error("there was one more")
		}
		for _, back := range held {
			back()
			back() // twice is once
		}
		for range n {
			if _, err := s.take(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if len(s.free) != 0 {
			t.Errorf("%d slots too many came back", len(s.free))
		}
	})
}

// A slot that is given back in time is never lent.
func TestSlotInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(1, 5*time.Second)
		for range 10 {
			back, err := s.take(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(4 * time.Second)
			if len(s.free) != 0 {
				t.Error("it was lent")
			}
			back()
		}
		time.Sleep(time.Minute)
		if len(s.free) != 1 {
			t.Errorf("%d slots are free", len(s.free))
		}
	})
}

func stopped(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}
