package server

import (
	"container/list"
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"
)

// reviewTimeout bounds an answer of the API server, the wait for one's turn
// included.
const reviewTimeout = 10 * time.Second

// Bounds of a set of verdicts: how many are remembered, asked for at a time, and
// waited for.
const (
	maxVerdicts = 4096
	maxAsked    = 16
	maxWaiting  = 256
)

// errBusy: so many questions wait for the API server that one more is not taken.
var errBusy = errors.New("too many questions wait for the API server")

// errGivenUp: who was to ask went away before it was their turn.
var errGivenUp = errors.New("given up")

// key is the digest of a question: a token is never kept.
type key = [sha256.Size]byte

// verdicts remembers the API server's answers for a while, asks each question
// once at a time, and never more than a few. Errors are not remembered.
type verdicts[V any] struct {
	turns chan struct{}

	mu      sync.Mutex
	known   map[key]*list.Element // of *verdict[V]
	used    *list.List            // the one used last first
	flights map[key]*flight[V]
}

type verdict[V any] struct {
	of    key
	value V
	until time.Time
}

// flight is a question under way; value and err may be read once done is closed.
type flight[V any] struct {
	done  chan struct{}
	value V
	err   error
}

func newVerdicts[V any]() *verdicts[V] {
	return &verdicts[V]{turns: make(chan struct{}, maxAsked), known: map[key]*list.Element{}, used: list.New(), flights: map[key]*flight[V]{}}
}

// get returns what is known or what ask returns, which is kept for as long as ask
// says. ask gets a deadline and outlives ctx, since others may wait for it too.
func (v *verdicts[V]) get(ctx context.Context, k key, ask func(context.Context) (V, time.Duration, error)) (value V, err error) {
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	for {
		v.mu.Lock()
		if e, ok := v.known[k]; ok {
			known := e.Value.(*verdict[V]) //nolint:forcetypeassert // nothing else is in the list
			if time.Now().Before(known.until) {
				v.used.MoveToFront(e)
				v.mu.Unlock()
				return known.value, nil
			}
			v.drop(e)
		}
		f, under := v.flights[k]
		if !under {
			if len(v.flights) >= maxAsked+maxWaiting {
				v.mu.Unlock()
				return value, errBusy
			}
			f = &flight[V]{done: make(chan struct{}), err: errGivenUp}
			v.flights[k] = f
			v.mu.Unlock()
			v.fly(ctx, k, f, ask)
			return f.value, f.err
		}
		v.mu.Unlock()
		select {
		case <-ctx.Done():
			return value, context.Cause(ctx)
		case <-f.done:
			if !errors.Is(f.err, errGivenUp) {
				return f.value, f.err
			}
		}
	}
}

// fly asks in the goroutine of who came first.
func (v *verdicts[V]) fly(ctx context.Context, k key, f *flight[V], ask func(context.Context) (V, time.Duration, error)) {
	var keep time.Duration
	defer func() { // also after a panic: nobody may wait for ever
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.flights, k)
		if f.err == nil && keep > 0 {
			v.keep(&verdict[V]{of: k, value: f.value, until: time.Now().Add(keep)})
		}
		close(f.done)
	}()
	select {
	case v.turns <- struct{}{}:
		defer func() { <-v.turns }()
	case <-ctx.Done():
		return
	}
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), reviewTimeout)
	defer cancel()
	f.value, keep, f.err = ask(own)
}

// keep is called with the lock held, as drop.
func (v *verdicts[V]) keep(n *verdict[V]) {
	v.known[n.of] = v.used.PushFront(n)
	if v.used.Len() > maxVerdicts {
		v.drop(v.used.Back())
	}
}

func (v *verdicts[V]) drop(e *list.Element) {
	old := v.used.Remove(e).(*verdict[V]) //nolint:forcetypeassert // nothing else is in the list
	delete(v.known, old.of)
}
