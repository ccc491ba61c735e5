package ipvs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"nodeagent/internal/net"
)

// Sync reads what the kernel holds and makes it hold exactly the table. Where
// nothing differs it changes nothing, so that a daemon that starts again cuts
// nobody off. The kernel has no transactions here: what closes an address comes
// before it is served, and what is served goes before its address.
func (b *Backend) Sync(ctx context.Context, t *net.Table) (net.Report, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, err := b.sync(ctx, t)
	if err != nil {
		return r, b.end(fmt.Errorf("program service rules: %w", err))
	}
	return r, nil
}

// end notes an error: what the kernel holds is not known then.
func (b *Backend) end(err error) error {
	if err != nil {
		b.known = false
		b.close()
	}
	return err
}

// open gets hold of all that a change needs.
func (b *Backend) open(ctx context.Context) (stop func(), err error) {
	if err := b.openServers(); err != nil {
		return nil, err
	}
	if b.sets == nil {
		if b.sets, err = openSets(); err != nil {
			return nil, err
		}
	}
	if err := b.sets.bound(ctx); err != nil {
		return nil, fmt.Errorf("bound ipset socket: %w", err)
	}
	return b.guard(ctx), ctx.Err()
}

func (b *Backend) sync(ctx context.Context, t *net.Table) (net.Report, error) {
	b.known = false
	var r net.Report
	stop, err := b.open(ctx)
	if err != nil {
		return r, err
	}
	defer stop()
	if err := errors.Join(b.tune("/proc/sys/net"), b.setTimeouts()); err != nil {
		return r, err
	}
	b.links.Store(false)
	at, err := b.readAddresses()
	if err != nil {
		return r, err
	}
	r.Rebuilt = at.device == nil
	if err := b.ensureDevice(&at); err != nil {
		return r, err
	}
	have, err := b.read(ctx, at, &r)
	if err != nil {
		return r, err
	}
	b.plan = newPlan(b.cfg, b.bit, at.nodes)
	want := b.plan.whole(t, marksIn(have.elements))
	since := b.drains
	b.drains = map[drain]time.Time{}
	was := b.writes
	err = b.move(have, want, since)
	r.Elements = b.writes - was
	if err == nil {
		err = ctx.Err()
	}
	b.known = err == nil
	return r, err
}

// marksIn are the marks that addresses have.
func marksIn(els map[element]uint32) map[net.Address]uint32 {
	out := map[net.Address]uint32{}
	for x, m := range els {
		if x.set == local {
			out[x.at] = m
		}
	}
	return out
}

// read looks at everything, and makes the sets and fixed rules that are missing.
func (b *Backend) read(ctx context.Context, at addresses, r *net.Report) (holding, error) {
	out := newHolding()
	if err := b.readSets(ctx, out.elements, r); err != nil {
		return out, err
	}
	if err := b.syncRules(ctx, r); err != nil {
		return out, err
	}
	servers, err := b.readServers()
	if err != nil {
		return out, err
	}
	out.bound = at.bound
	for s, p := range servers {
		if b.owns(s, out) {
			out.servers[s] = p
		}
	}
	return out, nil
}

// owns tells whether a virtual server is ours: by our mark, or by an address that
// is on our device or among what we said that we serve.
func (b *Backend) owns(s server, have holding) bool {
	if s.mark != 0 {
		return ourMark(s.mark, b.bit)
	}
	if b.excluded(s.at.IP) {
		return false
	}
	_, here := have.elements[element{set: served, at: s.at}]
	_, vip := have.elements[onlyAddress(ips, s.at.IP)]
	return here || vip || have.bound[s.at.IP]
}

// excluded tells of addresses that stay as they are.
func (b *Backend) excluded(a netip.Addr) bool {
	return slices.ContainsFunc(b.cfg.Exclude, func(p netip.Prefix) bool { return p.Contains(a) })
}

// readSets reads the elements of all sets. Sets that are missing are made; one that
// is of another form is not what our rules look into.
func (b *Backend) readSets(ctx context.Context, into map[element]uint32, r *net.Report) error {
	there, err := b.sets.headers()
	if err != nil {
		return err
	}
	for _, f := range families() {
		for k := range setKinds {
			h, ok := there[k.name(f.v6)]
			if ok && h.kind != forms[k].kind {
				return fmt.Errorf("set %s is of type %s and not %s: remove it (ipset destroy)", k.name(f.v6), h.kind, forms[k].kind)
			}
			if !ok {
				r.Rebuilt = true
				err = b.sets.create(k, f.v6)
			} else {
				err = b.sets.list(k, k.name(f.v6), into)
			}
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return err
			}
		}
	}
	b.counts, b.elements = map[string]uint32{}, 0
	for x, mark := range into {
		b.counts[x.name()]++
		b.elements += b.sumElement(x, mark)
	}
	return nil
}

func (b *Backend) syncRules(ctx context.Context, r *net.Report) error {
	tools, err := b.choose(ctx)
	if err != nil {
		return err
	}
	b.rules.Store(false)
	for _, t := range tools {
		have, err := t.read(ctx)
		if err != nil {
			return err
		}
		text := b.patch(t.f, have)
		r.Rebuilt = r.Rebuilt || text != ""
		if err := t.write(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

// Apply makes the changes of a diff; t is the table after it. If the kernel holds
// something else than expected, or that is not known, it does a Sync.
func (b *Backend) Apply(ctx context.Context, t *net.Table, d *net.Diff) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known && d.Empty() {
		return nil
	}
	if b.known {
		err := b.apply(ctx, d)
		if err == nil || ctx.Err() != nil {
			return b.end(err)
		}
		_ = b.end(err)
	}
	if _, err := b.sync(ctx, t); err != nil {
		return b.end(fmt.Errorf("program service rules: %w", err))
	}
	return nil
}

func (b *Backend) apply(ctx context.Context, d *net.Diff) error {
	stop, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer stop()
	have, want := b.plan.change(d)
	if err := b.move(have, want, b.drains); err != nil {
		return fmt.Errorf("change service rules: %w", err)
	}
	return ctx.Err()
}
