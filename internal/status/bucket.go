package status

import "time"

// bucket limits how often something is done: so many times at once, then one
// each interval. Its zero value is full.
type bucket struct {
	used float64   // how many of the burst were used
	at   time.Time // as of when
}

// pace is how often a bucket lets something pass.
type pace struct {
	burst float64
	every time.Duration
}

// settle lets time give back what was used.
func (b *bucket) settle(p pace, now time.Time) {
	b.used = max(0, b.used-float64(now.Sub(b.at))/float64(p.every))
	b.at = now
}

// when tells when the next one may pass.
func (b *bucket) when(p pace, now time.Time) time.Time {
	b.settle(p, now)
	if over := b.used + 1 - p.burst; over > 0 {
		return now.Add(time.Duration(over * float64(p.every)))
	}
	return now
}

// take lets one pass.
func (b *bucket) take(p pace, now time.Time) {
	b.settle(p, now)
	b.used++
}
