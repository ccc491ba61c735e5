package probe

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"time"
)

// together is how far apart the times of probes may be that are started at once.
const together = 10 * time.Millisecond

// landing is how long probes that run get to end when the daemon does.
const landing = 5 * time.Second

// Run starts probes as they are due, until ctx ends.
func (s *Set) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s.removeRecords()
		for _, l := range s.takeDue(time.Now()) {
			s.start(ctx, l.probe, l.target)
		}
		if wait := s.untilDue(time.Now()); wait >= 0 {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			s.land()
			return nil
		case <-s.poke:
		case <-timer.C:
		}
	}
}

// land waits for the probes that run, but not for ever.
func (s *Set) land() {
	done := make(chan struct{})
	go func() { // ends with the last flight, each of which has a deadline
		s.flights.Wait()
		close(done)
	}()
	t := time.NewTimer(landing)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

// launch is a probe that starts now.
type launch struct {
	probe  *probe
	target *Target
}

// takeDue takes the probes that may start now.
func (s *Set) takeDue(now time.Time) []launch {
	s.mu.Lock()
	defer s.mu.Unlock()
	start := s.launches[:0]
	for c := range s.classes {
		for p := s.classes[c].next(now); p != nil; p = s.classes[c].next(now) {
			if s.stillWanted(p) {
				start = append(start, launch{p, p.prepared()})
			}
		}
	}
	for len(s.times) > 0 && !s.times[0].due.After(now.Add(together)) {
		p := s.times.first()
		p.flying = true
		if s.class(p).board(p, now) {
			start = append(start, launch{p, p.prepared()})
		}
	}
	s.launches = start
	return start
}

// stillWanted tells whether a probe that waited for a slot shall run. If not it
// has landed.
func (s *Set) stillWanted(p *probe) bool {
	if !p.run.gone && p.kind.active(p.run.health, p.run.leaving) {
		return true
	}
	s.class(p).release(p)
	p.flying = false
	return false
}

func (s *Set) class(p *probe) *class {
	if p.spec().Exec != nil {
		return &s.classes[1]
	}
	return &s.classes[0]
}

// prepared returns the probe's target, which outlives many flights.
func (p *probe) prepared() *Target {
	if p.target == nil {
		r := p.run
		p.target = &Target{Container: r.id, Spec: r.spec, Probe: p.spec(), Host: r.host}
	}
	return p.target
}

// untilDue is how long nothing happens; negative: until somebody tells.
func (s *Set) untilDue(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.due = time.Time{}
	for i := range s.classes {
		s.earlier(s.classes[i].wake())
	}
	if len(s.times) > 0 {
		s.earlier(s.times[0].due)
	}
	if s.due.IsZero() {
		return -1
	}
	return max(s.due.Sub(now), 0)
}

func (s *Set) earlier(at time.Time) {
	if !at.IsZero() && (s.due.IsZero() || at.Before(s.due)) {
		s.due = at
	}
}

// wakeEarlier wakes the loop when something is due before what it waits for.
// Called with mu held.
func (s *Set) wakeEarlier() {
	if len(s.times) > 0 && (s.due.IsZero() || s.times[0].due.Before(s.due)) {
		s.wake()
	}
}

func (s *Set) wake() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// start runs the probe in a goroutine that ends by the probe's timeout.
func (s *Set) start(ctx context.Context, p *probe, t *Target) {
	s.flights.Go(func() {
		begun := time.Now()
		out := s.try(ctx, t)
		if ctx.Err() != nil {
			return // the daemon ends: what was broken off says nothing
		}
		s.landed(p, out, begun)
	})
}

// attempts is how often a probe is tried that could not be made (kubelet's
// maxProbeRetries).
const attempts = 3

// try asks until there is an answer.
func (s *Set) try(ctx context.Context, t *Target) (out Outcome) {
	for range attempts {
		if out = s.once(ctx, t); out.Err == nil || ctx.Err() != nil {
			break
		}
	}
	return out
}

// late is how much longer than its timeout a probe may take until its failure
// says more of this node than of the container: the daemon was stopped, or the
// runtime does not answer.
const late = 3 * time.Second

// once contains a panic: a hostile answer is no reason to end the daemon.
func (s *Set) once(ctx context.Context, t *Target) (out Outcome) {
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Logger.Error("contain a panic", "action", "probe", "container", t.Container, "panic", p, "stack", string(debug.Stack()))
			out = Outcome{Err: errors.New("internal error")}
		}
	}()
	begun := time.Now()
	out = s.cfg.Prober.Probe(ctx, t)
	if took := time.Since(begun); out.Err == nil && out.Result == Failure && took > timeout(t.Probe)+late {
		return Outcome{Err: fmt.Errorf("the probe ended %s after its timeout: the node is not keeping up", took-timeout(t.Probe))}
	}
	return out
}

// landed takes a probe's outcome into account and gives it its next time.
func (s *Set) landed(p *probe, out Outcome, begun time.Time) {
	now := time.Now()
	s.mu.Lock()
	r, c := p.run, s.class(p)
	c.release(p)
	p.flying = false
	if len(c.waiting) > 0 {
		s.wake()
	}
	if r.gone || !p.kind.active(r.health, r.leaving) {
		s.mu.Unlock()
		return
	}
	p.counts[out.counted()]++
	if out.Result != Failure { // as kubelet: of successes only
		p.taken.add(now.Sub(begun))
	}
	if begun.Before(p.due) {
		begun = p.due // started a moment early, together with others: its time counts
	}
	changed := out.Err == nil && p.settle(out.Result != Failure, begun.Sub(r.started))
	if p.kind.active(r.health, r.leaving) {
		p.due = now.Add(p.wait(out, begun, now))
		s.times.add(p)
	}
	s.arrange(r, now)
	s.wakeEarlier()
	event, tell := p.event(out)
	save := changed && !r.saving
	r.saving = r.saving || save
	s.mu.Unlock()
	if tell {
		s.cfg.Event(event)
	}
	if save {
		s.publish(r)
	}
}

// wait is when the probe is due again.
func (p *probe) wait(out Outcome, begun, now time.Time) time.Duration {
	spec := p.spec()
	if out.Result == Failure && early(p.kind, spec, begun.Sub(p.run.started)) {
		return max(period(spec)-max(now.Sub(p.run.started), 0), 0)
	}
	return nextWait(spec, p.due, now)
}

// event is what there is to tell of an outcome. Called with mu held.
func (p *probe) event(out Outcome) (Event, bool) {
	e := Event{Pod: p.run.pod.pod, Container: p.run.spec.Name, Reason: "Unhealthy"}
	switch {
	case out.Err != nil:
		e.Message = p.kind.String() + " probe errored and resulted in unknown state: " + Printable(out.Err.Error())
	case out.Result == Warning:
		e.Reason, e.Message = "ProbeWarning", p.kind.String()+" probe warning: "+Printable(out.Text)
	case out.Result == Failure:
		e.Message = p.kind.String() + " probe failed: " + Printable(out.Text)
	}
	e.Again = p.text == e.Message
	p.text = e.Message
	return e, e.Message != ""
}

// publish puts the run's latest verdict on record, shows it and wakes the pod's
// worker. What is shown is on record: else a daemon that is killed in between
// would leave a container less ready than it was said to be.
func (s *Set) publish(r *run) {
	for {
		s.mu.Lock()
		health, gone := r.health, r.gone
		s.mu.Unlock()
		var err error
		if !gone {
			if err = s.cfg.Records.Save(r.id, health); err != nil {
				s.cfg.Logger.Warn("cannot keep a verdict for the next daemon", "container", r.id, "err", err)
			}
		}
		s.mu.Lock()
		if r.gone {
			r.saving = false
			s.dropped = append(s.dropped, r.id)
			s.wake()
			s.mu.Unlock()
			return
		}
		if r.health != health {
			s.mu.Unlock()
			continue
		}
		r.saving = false
		r.pod.publish()
		uid := r.pod.pod.UID
		s.mu.Unlock()
		s.cfg.Logger.Debug("verdict", "podUID", uid, "container", r.spec.Name,
			"started", health.Started, "ready", health.Ready, "unhealthy", strconv.Quote(health.Unhealthy))
		s.cfg.Wake(uid)
		return
	}
}
