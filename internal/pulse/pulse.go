// Package pulse owns what tells a loop that hangs from one that rests or waits: a
// loop says when it begins to wait for news, when it works, and how long a call
// may take that has a deadline.
//
// It never looks at a loop by itself, and knows nobody who asks. The loop and who
// asks may be any goroutines. It never imports another package of this module.
package pulse

import (
	"sync"
	"time"
)

// Pulse is that of one loop. The zero value rests.
type Pulse struct {
	mu sync.Mutex
	at time.Time // of the last sign of life, or until when none is due; zero: it rests
}

// Rest says that the loop waits for news, which may be for ever.
func (p *Pulse) Rest() { p.set(time.Time{}) }

// Beat says that the loop works, and has come here.
func (p *Pulse) Beat() { p.set(time.Now()) }

// Within says that the loop makes a call that ends within d: until then it may be
// silent.
func (p *Pulse) Within(d time.Duration) { p.set(time.Now().Add(d)) }

func (p *Pulse) set(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = at
}

// Progress is when the loop last made progress: now while it rests or its call has
// time. It does not go by the wall clock.
func (p *Pulse) Progress() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.at.IsZero() || p.at.After(now) {
		return now
	}
	return p.at
}
