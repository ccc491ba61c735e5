package object

import (
	"context"
	"time"
)

// asking is something that is asked for at times, with no goroutine between
// them. All is guarded by the Store's mu.
type asking struct {
	// turn asks once and returns when to ask again; zero: not by itself.
	turn   func(context.Context) time.Duration
	ctx    context.Context
	cancel context.CancelFunc
	timer  *time.Timer // to the next turn
	busy   bool        // a turn is under way
	more   bool        // and another one is wanted after it
}

func (s *Store) newAsking(ctx context.Context, turn func(context.Context) time.Duration) asking {
	ctx, cancel := context.WithCancel(ctx)
	return asking{turn: turn, ctx: ctx, cancel: cancel}
}

// ask begins a turn now, or after the one that is under way. Called with mu held.
func (s *Store) ask(a *asking) {
	switch {
	case !s.running || a.ctx.Err() != nil:
	case a.busy:
		a.more = true
	default:
		if a.timer != nil {
			a.timer.Stop()
		}
		a.busy = true
		s.flights.Go(func() { s.turn(a) })
	}
}

// turn makes one turn and arranges the next.
func (s *Store) turn(a *asking) {
	var wait time.Duration
	if release, err := s.place(a.ctx); err == nil {
		ctx, cancel := context.WithTimeoutCause(a.ctx, deadlineAnswer, errNoAnswer)
		wait = a.turn(ctx)
		cancel()
		release()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a.busy = false
	switch {
	case a.ctx.Err() != nil || !s.running:
	case a.more:
		a.more = false
		s.ask(a)
	case wait > 0:
		a.timer = time.AfterFunc(wait, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.ask(a)
		})
	}
}

// end makes this turn the last. Called with mu held.
func (a *asking) end() {
	a.cancel()
	if a.timer != nil {
		a.timer.Stop()
	}
}
