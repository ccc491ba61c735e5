package server

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestVerdictsAreKeptForTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, asked := newVerdicts[int](), 0
		get := func(k key) int {
			n, err := v.get(t.Context(), k, func(context.Context) (int, time.Duration, error) { asked++; return asked, time.Minute, nil })
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		if get(key{1}) != 1 || get(key{2}) != 2 || get(key{1}) != 1 {
			t.Error("an answer is not kept")
		}
		time.Sleep(time.Minute)
		if get(key{1}) != 3 {
			t.Error("an answer is kept for longer than its time")
		}
		bad := errors.New("away")
		for range 2 {
			if _, err := v.get(t.Context(), key{9}, func(context.Context) (int, time.Duration, error) { asked++; return 0, time.Minute, bad }); !errors.Is(err, bad) {
				t.Errorf("an error is told as %v", err)
			}
		}
		if asked != 5 {
			t.Errorf("asked %d times, want 5: errors are not kept", asked)
		}
		for i := range 2 * maxVerdicts {
			get(key{3, byte(i), byte(i >> 8), byte(i >> 16)})
		}
		if len(v.known) != maxVerdicts || v.used.Len() != maxVerdicts {
			t.Errorf("%d answers are kept, want %d", len(v.known), maxVerdicts)
		}
	})
}

// TestVerdictsAskOnce: many who want to know the same make one question, and a
// server that never answers holds nobody for longer than the limit.
func TestVerdictsAskOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, began := newVerdicts[int](), time.Now()
		var asked sync.Map
		hang := func(k key) func(context.Context) (int, time.Duration, error) {
			return func(ctx context.Context) (int, time.Duration, error) {
				if _, twice := asked.LoadOrStore(k, true); twice {
					t.Errorf("%v is asked twice at a time", k[0])
				}
				<-ctx.Done()
				return 1, time.Minute, ctx.Err()
			}
		}
		var all sync.WaitGroup
		for i := range 4 * maxAsked {
			all.Go(func() {
				k := key{byte(i % maxAsked)}
				if n, err := v.get(t.Context(), k, hang(k)); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("a server that hangs answers %d, %v", n, err)
				}
			})
		}
		synctest.Wait()
		if n := len(v.turns); n != maxAsked {
			t.Errorf("%d questions at a time, want %d", n, maxAsked)
		}
		// All turns are taken: who goes away does not stay in the queue.
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			_, err := v.get(ctx, key{99}, hang(key{99}))
			gone <- err
		}()
		after := make(chan int, 1)
		synctest.Wait()
		go func() { // and who waited for the answer to the same asks it
			n, err := v.get(t.Context(), key{99}, func(context.Context) (int, time.Duration, error) { return 7, 0, nil })
			if err != nil && !errors.Is(err, errGivenUp) && !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			after <- n
		}()
		synctest.Wait()
		cancel()
		if err := <-gone; err == nil {
			t.Error("who went away got an answer")
		}
		all.Wait()
		<-after
		if spent := time.Since(began); spent > 2*reviewTimeout {
			t.Errorf("a server that hangs held somebody for %s", spent)
		}
		if len(v.flights) != 0 || len(v.turns) != 0 || len(v.known) != 0 {
			t.Errorf("it leaves %d, %d, %d", len(v.flights), len(v.turns), len(v.known))
		}
	})
}

// TestVerdictsTakeNoMore: beyond its bound a question is refused at once.
func TestVerdictsTakeNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVerdicts[int]()
		hang := func(ctx context.Context) (int, time.Duration, error) { <-ctx.Done(); return 0, 0, ctx.Err() }
		var all sync.WaitGroup
		for i := range maxAsked + maxWaiting {
			all.Go(func() { _, _ = v.get(t.Context(), key{1, byte(i), byte(i >> 8)}, hang) })
		}
		synctest.Wait()
		if _, err := v.get(t.Context(), key{2}, hang); !errors.Is(err, errBusy) {
			t.Errorf("one more question: %v", err)
		}
		all.Wait()
	})
}

// TestVerdictsSurviveAPanic: nobody waits for who fell.
func TestVerdictsSurviveAPanic(t *testing.T) {
	v := newVerdicts[int]()
	func() {
		defer func() { _ = recover() }()
		_, _ = v.get(t.Context(), key{1}, func(context.Context) (int, time.Duration, error) { panic("fault") })
	}()
	if n, err := v.get(t.Context(), key{1}, func(context.Context) (int, time.Duration, error) { return 7, 0, nil }); n != 7 || err != nil {
		t.Errorf("after a panic: %d, %v", n, err)
	}
}
