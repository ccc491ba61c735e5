package main

import (
	"context"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"nodeagent/test/measure"
)

// change is one that is asked for, and how it is known to be in force.
type change struct {
	ask func(context.Context) error
	at  netip.AddrPort
	by  []netip.Addr
}

// series makes changes one after another. A change's time begins when the API server has
// answered that it is made: how long it takes to make a service grows with their number,
// and is neither side's.
func (b *bench) series(ctx context.Context, s *side, v *values, latency, cpu int, all []change) error {
	var took, whole []float64
	for _, c := range all {
		if err := measure.Pause(ctx, apart); err != nil {
			return err
		}
		before, err := measure.GroupTime(s.cpu)
		if err != nil {
			return err
		}
		begun := time.Now()
		if err := c.ask(ctx); err != nil {
			return err
		}
		answered := time.Now()
		at, err := b.until(ctx, c.at, c.by...)
		if err != nil {
			return err
		}
		if err := measure.Pause(ctx, after); err != nil {
			return err
		}
		now, err := measure.GroupTime(s.cpu)
		if err != nil {
			return err
		}
		v.add(window, time.Since(begun).Seconds())
		v.add(cpu, (now - before).Seconds())
		took, whole = append(took, at.Sub(answered).Seconds()), append(whole, at.Sub(begun).Seconds())
	}
	if latency >= 0 {
		v[latency] = append(v[latency], took...)
		v[latency+fromAsked] = append(v[latency+fromAsked], whole...)
	}
	return nil
}

// extraServices are those that a turn makes for itself.
func (b *bench) extraServices(s *side) (all []int) {
	for k := range s.changes {
		all = append(all, b.services+k)
	}
	return all
}

func (b *bench) dropAll(ctx context.Context, all []int) error {
	for _, i := range all {
		if err := b.drop(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// create makes services whose endpoints are there already.
func (b *bench) create(ctx context.Context, s *side, v *values, _ int) error {
	var all []change
	fresh := b.extraServices(s)
	for _, i := range fresh {
		if err := b.makeSlice(ctx, i, usual(i)); err != nil {
			return err
		}
		all = append(all, change{func(ctx context.Context) error { return b.makeService(ctx, i) }, serviceAddress(i), usual(i)})
	}
	if err := b.series(ctx, s, v, createdLatency, createdCPU, all); err != nil {
		return err
	}
	return b.dropAll(ctx, fresh)
}

// move replaces the endpoint of services that have one: so the first that is led to
// another place is seen.
func (b *bench) move(ctx context.Context, s *side, v *values, _ int) error {
	var all []change
	fresh := b.extraServices(s)
	for _, i := range fresh {
		if err := b.makeSlice(ctx, i, usual(i)[:1]); err != nil {
			return err
		}
		if err := b.makeService(ctx, i); err != nil {
			return err
		}
		to := []netip.Addr{b.spare()}
		all = append(all, change{func(ctx context.Context) error { return b.setEnds(ctx, i, to) }, serviceAddress(i), to})
	}
	for _, i := range fresh {
		if _, err := b.until(ctx, serviceAddress(i), usual(i)[0]); err != nil {
			return err
		}
	}
	if err := b.series(ctx, s, v, movedLatency, movedCPU, all); err != nil {
		return err
	}
	return b.dropAll(ctx, fresh)
}

// more gives services all over the range one more endpoint, and then those that they
// had.
func (b *bench) more(ctx context.Context, s *side, v *values, n int) error {
	var all []change
	var changed []int
	for k := range s.changes {
		i, another := k*n/s.changes, b.spare()
		changed = append(changed, i)
		all = append(all, change{func(ctx context.Context) error { return b.setEnds(ctx, i, append(usual(i), another)) }, serviceAddress(i), []netip.Addr{another}})
	}
	if err := b.series(ctx, s, v, -1, cameCPU, all); err != nil {
		return err
	}
	return b.restore(ctx, changed)
}

// restore gives services their usual endpoints.
func (b *bench) restore(ctx context.Context, changed []int) error {
	asking, bounded := errgroup.WithContext(ctx)
	asking.SetLimit(clients)
	for _, i := range changed {
		asking.Go(func() error { return b.setEnds(bounded, i, usual(i)) })
	}
	return asking.Wait()
}

// burst is how many services change at once.
const burst = 1000

// atOnce moves an endpoint of many services as fast as clients can ask, and waits until
// all are in force.
func (b *bench) atOnce(ctx context.Context, s *side, v *values, n int) error {
	if err := measure.Pause(ctx, settle); err != nil {
		return err
	}
	batches, err := b.figure(ctx, "sync_proxy_rules_duration_seconds_count")
	if err != nil {
		return err
	}
	before, err := measure.GroupTime(s.cpu)
	if err != nil {
		return err
	}
	var changed []int
	ends := map[int][]netip.Addr{}
	for i := range min(burst, n) {
		changed, ends[i] = append(changed, i), usual(i)
		ends[i][0] = b.spare()
	}
	begun, last := time.Now(), time.Time{}
	asking, bounded := errgroup.WithContext(ctx)
	asking.SetLimit(clients)
	for _, i := range changed {
		asking.Go(func() error { return b.setEnds(bounded, i, ends[i]) })
	}
	if err := asking.Wait(); err != nil {
		return err
	}
	for k := range clients { // the last ones were asked for side by side
		i := changed[len(changed)-1-k]
		if last, err = b.until(ctx, serviceAddress(i), ends[i][0]); err != nil {
			return err
		}
	}
	if err := measure.Pause(ctx, after); err != nil {
		return err
	}
	now, err := measure.GroupTime(s.cpu)
	if err != nil {
		return err
	}
	written, err := b.figure(ctx, "sync_proxy_rules_duration_seconds_count")
	if err != nil {
		return err
	}
	v.add(burstTook, last.Sub(begun).Seconds())
	v.add(burstCPU, (now - before).Seconds())
	v.add(burstBatches, written-batches)
	if err := b.restore(ctx, changed); err != nil {
		return err
	}
	end := changed[len(changed)-1]
	_, err = b.until(ctx, serviceAddress(end), endpointAddress(end, 0))
	return err
}
