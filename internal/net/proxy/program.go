package proxy

import (
	"context"
	"sync"
	"time"

	"nodeagent/internal/net"
)

const (
	// callTimeout bounds one call of the Backend.
	callTimeout = 2 * time.Minute
	// watchTimeout is how long the first look waits for somebody who tells of the
	// changes after it.
	watchTimeout = time.Second
	// patience is for how long rules wait for facts of the Node which they need: a
	// node that is new has its addresses in a moment; and for ServiceCIDRs, which an
	// earlier daemon knew.
	patience = 30 * time.Second
)

// turn does what is due, and sets the timer for what will be.
func (p *Proxy) turn(ctx context.Context) {
	for ctx.Err() == nil {
		p.pulse.Beat()
		now := time.Now()
		at := p.next(now)
		switch {
		case at.IsZero():
			p.timer.Stop()
			return
		case at.After(now):
			p.timer.Reset(at.Sub(now))
			return
		}
		p.program(ctx)
	}
}

// next is when the kernel is to be told something; zero: nothing waits. Until all
// is known that there is, nothing is written: rules of an earlier daemon are better
// than the first half of ours.
func (p *Proxy) next(now time.Time) time.Time {
	if !p.known() {
		return time.Time{}
	}
	want := p.cfg.Needs.of(p.node.facts)
	if p.backend == nil && now.Before(p.patient) && (p.cfg.Needs.Addrs && len(want.Addrs) == 0 || p.cfg.Needs.PodCIDRs && len(want.PodCIDRs) == 0) {
		return p.patient
	}
	if p.cfg.Needs.ServiceCIDRs && !p.listed[serviceCIDRs] && now.Before(p.patient) {
		return p.patient
	}
	if p.backend == nil || !want.equal(p.facts) {
		return latest(now, p.retryAt)
	}
	switch {
	case !p.sure:
		return latest(now, p.retryAt, p.heal.free)
	case p.model.Dirty():
		return p.batch.due()
	}
	return p.heirAt
}

func latest(ts ...time.Time) time.Time {
	var out time.Time
	for _, t := range ts {
		if t.After(out) {
			out = t
		}
	}
	return out
}

// program brings the kernel up to the model.
func (p *Proxy) program(ctx context.Context) {
	begun := time.Now()
	if err := p.fit(ctx); err != nil {
		p.failed(err, true)
		return
	}
	d := p.changes()
	full := !p.sure || d.Ranges
	var err error
	switch {
	case full:
		err = p.sync(ctx)
	case !d.Empty():
		err = p.bounded(ctx, func(ctx context.Context) error { return p.backend.Apply(ctx, p.model.Table(), &d) })
	}
	if net.IsRefused(err) {
		p.cfg.Logger.Warn("look for the service whose rules the kernel refuses", "err", err)
		err = p.narrow(ctx, &d, full)
		p.changes() // the kernel is without those already
	}
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	if full {
		p.heal.spent(begun, now)
	}
	if err != nil {
		p.failed(err, full)
		return
	}
	p.done(begun, now, full, full || !d.Empty())
	p.succeed(ctx)
}

// changes takes what changed in the model, and tells of it whom it concerns.
func (p *Proxy) changes() net.Diff {
	d := p.model.Take()
	p.owed.add(&d)
	p.tell(&d)
	for a, ends := range d.Flows() {
		p.stale[a] = ends
	}
	return d
}

// bounded calls the Backend.
func (p *Proxy) bounded(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	p.pulse.Within(callTimeout)
	defer p.pulse.Beat()
	return call(ctx)
}

// sync has the Backend compare everything. What others changed before is seen by it.
func (p *Proxy) sync(ctx context.Context) error {
	select {
	case <-p.wakes:
	default:
	}
	return p.bounded(ctx, func(ctx context.Context) error {
		r, err := p.backend.Sync(ctx, p.model.Table())
		if err == nil && (r != net.Report{}) {
			p.cfg.Logger.Info("put the service rules right", "rebuilt", r.Rebuilt, "chains", r.Chains, "elements", r.Elements)
		}
		return err
	})
}

// failed waits before the next try, which compares everything. Nothing else waits
// for that: changes go into the model meanwhile.
func (p *Proxy) failed(err error, full bool) {
	p.sure = false
	wait := p.again.next()
	p.retryAt = time.Now().Add(wait)
	p.state.failed(err, full)
	p.cfg.Logger.Error("service rules are not what they should be", "again", wait.Round(time.Millisecond), "err", err)
}

// done notes that the kernel holds what it should.
func (p *Proxy) done(begun, now time.Time, full, some bool) {
	p.sure, p.owed = true, owed{}
	p.again.reset()
	p.batch.done(now, some)
	if !p.begun {
		p.begun, p.whole = true, now
	}
	if c, ok := p.backend.(counter); ok {
		p.state.counted(c.Counts())
	}
	if some {
		p.state.wrote(begun, now, full, p.model.Table(), p.trigger)
	} else {
		p.state.level()
	}
	p.trigger = p.trigger[:0]
	if p.flows != nil && len(p.stale) > 0 {
		p.flows.add(p.stale)
	}
	p.stale = net.Flows{}
}

// fit makes the Backend that the Node's facts ask for.
func (p *Proxy) fit(ctx context.Context) error {
	want := p.cfg.Needs.of(p.node.facts)
	if p.backend != nil && want.equal(p.facts) {
		return nil
	}
	b, err := p.cfg.Backend(want)
	if err != nil {
		return err
	}
	if p.leave != nil {
		p.leave()
	}
	p.end()
	watching, leave := context.WithCancel(ctx)
	p.backend, p.facts, p.leave, p.sure = b, want, leave, false
	listens := make(chan struct{})
	p.owned.Go(func() { p.watch(watching, b, sync.OnceFunc(func() { close(listens) })) })
	// What changes after our look must be told of, and what changed before is seen.
	late := time.NewTimer(watchTimeout)
	defer late.Stop()
	select {
	case <-listens:
	case <-late.C:
	case <-ctx.Done():
	}
	return nil
}

// watch has the Backend tell of what others change, for as long as it is ours.
// listens is called when it begins to, or cannot.
func (p *Proxy) watch(ctx context.Context, b Backend, listens func()) {
	wake := func() {
		select {
		case p.wakes <- struct{}{}:
		default:
		}
		listens() // behind it: the first look answers the wake of the start, too
	}
	var again pause
	for ctx.Err() == nil {
		begun := time.Now()
		err := b.Watch(ctx, wake)
		listens()
		if ctx.Err() != nil {
			return
		}
		if time.Since(begun) > lastPause {
			again.reset()
		}
		wait := again.next()
		p.cfg.Logger.Warn("nobody tells of changes of service rules by others", "again", wait.Round(time.Millisecond), "err", err)
		linger(ctx, wait)
	}
}

// linger waits, unless ctx ends first.
func linger(ctx context.Context, wait time.Duration) {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// The waits for the next try to remove what another proxy left.
const (
	firstHeirWait = 30 * time.Second
	lastHeirWait  = time.Hour
)

// succeed removes what another proxy left, once, when our rules are in force.
func (p *Proxy) succeed(ctx context.Context) {
	s, ok := p.backend.(successor)
	if !ok || p.heir || time.Now().Before(p.heirAt) {
		return
	}
	var gone []string
	err := p.bounded(ctx, func(ctx context.Context) (err error) {
		gone, err = s.TakeOver(ctx)
		return err
	})
	if len(gone) > 0 {
		p.cfg.Logger.Info("removed what kube-proxy left", "tables", gone)
	}
	if err == nil {
		p.heir, p.heirAt = true, time.Time{}
		return
	}
	p.heirWait = min(max(2*p.heirWait, firstHeirWait), lastHeirWait)
	p.heirAt = time.Now().Add(p.heirWait)
	p.cfg.Logger.Warn("rules of another proxy, or of another mode, may still be there, and lead connections to where nobody is", "again", p.heirWait, "err", err)
}
