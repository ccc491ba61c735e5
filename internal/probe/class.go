package probe

import "time"

// class bounds how many probes of a kind of work run at a time. One that holds
// its slot for longer than the lease is not counted any more, so that stuck
// endpoints hold up nobody else; those that are left over are bounded by the
// number of probes, each of which runs once at a time.
type class struct {
	slots   int
	lease   time.Duration
	taken   int
	waiting []*probe // in the order in which they were due
	flights []flight // that hold a slot or held one, the oldest first
}

// flight is one run of a probe.
type flight struct {
	probe  *probe
	number uint64
	begun  time.Time
}

// board gives the probe a slot, or lets it wait.
func (c *class) board(p *probe, now time.Time) bool {
	c.expire(now)
	if c.taken >= c.slots {
		c.waiting = append(c.waiting, p)
		return false
	}
	c.take(p, now)
	return true
}

func (c *class) take(p *probe, now time.Time) {
	c.taken++
	p.flight++
	p.holds = true
	c.flights = append(c.flights, flight{p, p.flight, now})
}

// release gives the probe's slot back.
func (c *class) release(p *probe) {
	if p.holds {
		p.holds = false
		c.taken--
	}
}

// next takes one that waits and may start now, or returns nil.
func (c *class) next(now time.Time) *probe {
	c.expire(now)
	if len(c.waiting) == 0 || c.taken >= c.slots {
		return nil
	}
	p := c.waiting[0]
	c.waiting[0] = nil
	c.waiting = c.waiting[1:]
	c.take(p, now)
	return p
}

// expire ends the leases that are over, and forgets the flights that are.
func (c *class) expire(now time.Time) {
	n := 0
	for _, f := range c.flights {
		current := f.probe.holds && f.probe.flight == f.number
		if current && now.Sub(f.begun) < c.lease {
			break
		}
		if current {
			c.release(f.probe)
		}
		n++
	}
	if n > 0 {
		c.flights = append(c.flights[:0], c.flights[n:]...)
	}
	if len(c.waiting) == 0 {
		c.waiting = nil
	}
}

// wake is when somebody who waits may get a slot although nobody gives one back;
// zero: nobody waits.
func (c *class) wake() time.Time {
	if len(c.waiting) == 0 || len(c.flights) == 0 {
		return time.Time{}
	}
	return c.flights[0].begun.Add(c.lease)
}
