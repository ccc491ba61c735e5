package proxy

import (
	"math/rand/v2"
	"time"
)

// How changes are gathered. One that comes alone is written at once; where one was
// written a moment ago more will follow, and those that come within a moment are
// written together. While they go on coming that moment grows.
const (
	calm = 25 * time.Millisecond // after a batch: so long more is to be expected
	gap  = 2 * time.Millisecond  // nothing came for so long: it was all; twice that after each batch in a row
	full = 50 * time.Millisecond // and no change waits longer
)

// batch is when the changes came that wait to be written.
type batch struct {
	first, last time.Time     // zero: none waits
	written     time.Time     // when the batch before was
	gap         time.Duration // of the batches in a row
}

func (b *batch) add(now time.Time) {
	if b.first.IsZero() {
		b.first = now
	}
	b.last = now
}

// alone tells that what waits came some time after the batch before.
func (b *batch) alone() bool { return b.first.Sub(b.written) > calm }

// due is when to write what waits.
func (b *batch) due() time.Time {
	if b.alone() {
		return b.first
	}
	at := b.last.Add(b.gap)
	if most := b.first.Add(full); most.Before(at) {
		return most
	}
	return at
}

// done notes that nothing waits any more, and whether there was something to write.
func (b *batch) done(now time.Time, some bool) {
	if some {
		if b.alone() {
			b.gap = gap
		} else {
			b.gap = min(max(2*b.gap, gap), full)
		}
		b.written = now
	}
	b.first, b.last = time.Time{}, time.Time{}
}

// pace holds back what somebody else may cause as often as he likes: mending costs
// more than breaking. The first is mended at once, and then at most a fifth of the
// time goes into mending.
type pace struct{ free time.Time }

const (
	leastRest = 50 * time.Millisecond
	mostRest  = 30 * time.Second
	restShare = 4
)

func (p *pace) spent(begun, now time.Time) {
	p.free = now.Add(min(max(restShare*now.Sub(begun), leastRest), mostRest))
}

// pause is how long to wait after errors in a row.
type pause struct{ step time.Duration }

const (
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second
)

// next doubles the pause, with up to half as much again by chance.
func (p *pause) next() time.Duration {
	p.step = min(max(2*p.step, firstPause), lastPause)
	return p.step + rand.N(p.step/2)
}

func (p *pause) reset() { p.step = 0 }
