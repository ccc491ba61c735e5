package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nodeagent/internal/net"
)

// Answer is what the loop knows of one Service, for who explains.
type Answer struct {
	Facts net.Facts `json:"facts"`
	Loop  net.Loop  `json:"loop"`
}

// errBusy: a call of the Backend may last for its deadline.
var errBusy = errors.New("the loop of service rules does not answer: it is writing rules")

// Ask asks the loop what it knows of a Service. Who asks waits until it has time for that,
// or ctx ends.
func (p *Proxy) Ask(ctx context.Context, k net.Key) (a Answer, err error) {
	return ask(ctx, p, func() Answer { return p.tellOf(k) })
}

// Names lists the Services that the loop knows, as namespace/name.
func (p *Proxy) Names(ctx context.Context) ([]string, error) {
	return ask(ctx, p, func() []string { return p.model.Names() })
}

// ask has the loop do something of its own.
func ask[T any](ctx context.Context, p *Proxy, what func() T) (out T, err error) {
	answer := make(chan T, 1)
	select {
	case p.questions <- func() { answer <- what() }:
	case <-ctx.Done():
		return out, fmt.Errorf("%w: %w", errBusy, ctx.Err())
	}
	return <-answer, nil // it has begun, and asks nobody
}

// tellOf answers a question. It is called by Run.
func (p *Proxy) tellOf(k net.Key) Answer {
	a := Answer{Facts: p.model.Facts(k), Loop: net.Loop{Mode: p.cfg.Mode, Begun: p.begun}}
	s := p.state
	s.mu.Lock()
	a.Loop.Failure = s.failure
	if !s.since.IsZero() {
		a.Loop.Waiting = new(s.since)
	}
	for _, why := range s.troubles {
		if why != "" {
			a.Loop.Trouble = append(a.Loop.Trouble, why)
		}
	}
	s.mu.Unlock()
	if a.Loop.Failure != "" && p.retryAt.After(time.Now()) {
		a.Loop.Next = new(p.retryAt)
	}
	return a
}
