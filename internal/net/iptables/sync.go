package iptables

import (
	"context"
	"fmt"
	"hash/maphash"
	"io"
	"slices"

	"golang.org/x/sync/errgroup"

	"nodeagent/internal/net"
)

// Sync makes the kernel hold exactly the table. It reads what is there, unless the
// kernel told all that somebody else changed since it was known. Where nothing
// differs it changes nothing, so that a daemon that starts again cuts nobody off.
// Each table changes as a whole, but in the nft flavour, where many
// chains differ, in steps: what leads to a service comes after the service.
func (b *Backend) Sync(ctx context.Context, t *net.Table) (net.Report, error) {
	tools, err := b.choose(ctx)
	if err != nil {
		return net.Report{}, fmt.Errorf("program service rules: %w", err)
	}
	if b.heardNothing(t) {
		return net.Report{}, nil
	}
	same := b.known && b.edition == t.Edition()
	if in, ok := b.named(t); ok {
		b.known, same = false, false
		r, err := b.mend(ctx, tools, t, in)
		if b.known = err == nil; b.known {
			return r, nil
		}
	}
	r, err := b.level(ctx, tools, t, same)
	if err != nil && !IsLocked(err) && ctx.Err() == nil { // somebody wrote between our look and our change
		r, err = b.level(ctx, tools, t, false)
	}
	return r, err
}

// level is one try of a Sync. same says that the layouts are those of the table.
func (b *Backend) level(ctx context.Context, tools []tool, t *net.Table, same bool) (net.Report, error) {
	b.known = false
	b.settle() // what others did before is seen now
	r, err := b.sync(ctx, tools, t, same)
	if err != nil {
		return r, fmt.Errorf("program service rules: %w", err)
	}
	if !b.swept { // what an earlier run left in the other flavour would still serve
		if err := b.sweepOther(ctx, tools[0].flavour); err != nil {
			return r, fmt.Errorf("remove service rules of the other flavour of iptables: %w", err)
		}
		b.swept = true
	}
	b.known = true
	return r, nil
}

// work is what one program has to write.
type work struct {
	tool
	steps [][]job
}

func (b *Backend) sync(ctx context.Context, tools []tool, t *net.Table, same bool) (net.Report, error) {
	var r net.Report
	plan := b.layouts
	if !same {
		plan = b.plan(t)
	}
	since := uint32(0)
	if tools[0].flavour == NFT {
		var err error
		if since, err = generation(ctx); err != nil {
			return r, err
		}
	}
	var all []work
	for _, x := range tools {
		l := plan[0]
		if x.f.v6 {
			l = plan[1]
		}
		have, seed, err := b.look(ctx, x)
		if err != nil {
			return r, err
		}
		all = append(all, work{x, steps(x.flavour, differ(l, t, have, seed, &r))})
	}
	// What was told of before our look, and is not yet heard, was seen.
	if err := b.writeAll(ctx, since, all, b.settle); err != nil {
		return r, err
	}
	b.layouts, b.edition = plan, t.Edition()
	return r, nil
}

// writeAll writes what differs since some generation of the ruleset. While it is much in
// the nft flavour, nobody of ours listens: for each rule of it the kernel would make a
// message. What others did meanwhile the generation tells. written is called before
// anybody listens again.
func (b *Backend) writeAll(ctx context.Context, since uint32, all []work, written func()) error {
	transactions := 0
	for _, w := range all {
		for _, step := range w.steps {
			for _, r := range step {
				transactions += len(r)
			}
		}
	}
	write := func() error {
		for _, w := range all {
			if err := b.perform(ctx, w.tool, w.steps); err != nil {
				return err
			}
		}
		return nil
	}
	if !isMuch(all) {
		return write()
	}
	return b.own.Aside(since, func() (uint32, error) { return generation(ctx) }, func() (int, error) {
		err := write()
		written()
		return transactions, err
	})
}

// isMuch tells whether it is more than one run takes.
func isMuch(all []work) bool {
	var ps []patch
	for _, w := range all {
		for _, r := range slices.Concat(w.steps...) {
			ps = append(ps, r...)
		}
	}
	return len(all) > 0 && all[0].flavour == NFT && many(ps)
}

func (b *Backend) ours(name string) bool { return own(b.cfg.Prefix, name) }

// look reads both tables, side by side.
func (b *Backend) look(ctx context.Context, x tool) (map[string]seen, maphash.Seed, error) {
	seed := maphash.MakeSeed()
	found := make([]seen, len(tables))
	g, ctx := errgroup.WithContext(ctx)
	for i, table := range tables {
		g.Go(func() (err error) {
			found[i], err = b.lookAt(ctx, x, table, seed)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, seed, err
	}
	out := map[string]seen{}
	for i, table := range tables {
		out[table] = found[i]
	}
	return out, seed, nil
}

func (b *Backend) lookAt(ctx context.Context, x tool, table string, seed maphash.Seed) (out seen, err error) {
	if x.flavour == NFT {
		if s, ok := b.glance(ctx, x, table); ok {
			return s, nil
		}
	}
	err = x.read(ctx, table, func(r io.Reader) (err error) {
		out, err = parse(r, seed, b.ours)
		return err
	})
	return out, err
}

// differ makes what is to be written so that what is there becomes what shall be.
func differ(l *layout, t *net.Table, have map[string]seen, seed maphash.Seed, r *net.Report) []patch {
	ps := []patch{{table: nat}, {table: filter}}
	of := map[string]*patch{nat: &ps[0], filter: &ps[1]}
	wanted := map[string]bool{}
	fixed := map[string]bool{}
	for _, c := range l.fixed() {
		fixed[c.name] = true
	}
	l.each(t, func(c chain) {
		wanted[c.name] = true
		l.tally.put(c.table, c.name, len(c.rules))
		is, there := have[c.table].chains[c.name]
		if there && is.n == len(c.rules) && is == sumOf(seed, c.name, c.rules) {
			return
		}
		p := of[c.table]
		p.write = append(p.write, rewrite{chain: c})
		r.Elements += len(c.rules)
		if fixed[c.name] {
			r.Rebuilt = true
		} else {
			r.Chains++
		}
	})
	for table, s := range have {
		p := of[table]
		s.differJumps(l, p, r)
		for name, is := range s.chains {
			switch held := s.held(name); {
			case wanted[name]:
			case !held:
				p.drop = append(p.drop, name)
				r.Chains++
			case is.n > 0:
				p.empty = append(p.empty, name)
				r.Chains++
			}
		}
	}
	l.tally.wrote(ps)
	return ps
}

// held tells whether a rule that we do not touch leads to a chain of ours.
func (s *seen) held(name string) bool {
	return slices.ContainsFunc(s.rules, func(x foreign) bool { return x.to == name && !s.builtin[x.chain] })
}

// differJumps holds the jumps to our chains from the kernel's own: each once.
func (s *seen) differJumps(l *layout, p *patch, r *net.Report) {
	want := map[foreign]bool{}
	for _, j := range l.jumps() {
		if j.table == p.table {
			want[foreign{j.from, j.rule, target(j.rule)}] = true
		}
	}
	for _, x := range s.rules {
		if want[x] {
			delete(want, x)
		} else if s.builtin[x.chain] {
			p.undo = append(p.undo, x)
			r.Rebuilt = true
		}
	}
	for _, j := range l.jumps() { // each comes first: so the last is the first of all
		if want[foreign{j.from, j.rule, target(j.rule)}] && j.table == p.table {
			p.insert = append(p.insert, j)
			r.Rebuilt = true
		}
	}
}

// Apply makes the changes of a diff, in one transaction a table; t is the table
// after it. If the kernel holds something else than expected, or that is not
// known, it does what Sync does. Changes that the kernel refuses are taken back.
func (b *Backend) Apply(ctx context.Context, t *net.Table, d *net.Diff) error {
	if b.known && d.Empty() {
		return nil
	}
	tools, err := b.choose(ctx)
	if err != nil {
		return fmt.Errorf("change service rules: %w", err)
	}
	if !b.known {
		_, err := b.level(ctx, tools, t, false)
		return err
	}
	b.known = false
	err = b.change(ctx, tools, d, b.heard())
	switch {
	case err == nil:
		b.known, b.edition = true, t.Edition()
		return nil
	case IsLocked(err) || ctx.Err() != nil:
		return fmt.Errorf("change service rules: %w", err)
	case net.IsRefused(err) && b.undisturbed(ctx, tools):
		// Of two rounds the first may have been made, and what it took apart is put
		// together by nothing that the way back writes.
		two := slices.ContainsFunc(b.layouts, (*layout).isLate)
		back := reversed(d)
		b.known = b.change(ctx, tools, &back, true) == nil && !two
		return fmt.Errorf("change service rules: %w", err)
	}
	_, err = b.level(ctx, tools, t, false)
	return err
}

// change writes the changes of a diff; by whole chains, where it is not sure what these hold.
func (b *Backend) change(ctx context.Context, tools []tool, d *net.Diff, whole bool) error {
	var all []work
	for i, l := range b.layouts {
		var run [][]job
		rounds := l.rounds(d, whole)
		l.tally.wrote(slices.Concat(rounds...))
		for _, ps := range rounds {
			run = append(run, steps(tools[0].flavour, ps)...)
		}
		for _, x := range tools {
			if x.f.v6 == (i == 1) {
				all = append(all, work{x, run})
			}
		}
	}
	since := uint32(0)
	if isMuch(all) {
		var err error
		if since, err = generation(ctx); err != nil {
			return err
		}
	}
	return b.writeAll(ctx, since, all, func() {})
}

// reversed undoes a diff.
func reversed(d *net.Diff) net.Diff {
	out := net.Diff{
		ClusterIPs: net.Addresses{Added: d.ClusterIPs.Removed, Removed: d.ClusterIPs.Added},
		Here:       net.Addresses{Added: d.Here.Removed, Removed: d.Here.Added},
	}
	for _, c := range d.Entries {
		out.Entries = append(out.Entries, net.Change{Old: c.New, New: c.Old})
	}
	return out
}

// patches are what changed in a layout; by whole chains, if so asked.
func patches(l *layout, whole bool) []patch {
	write, drop := l.take()
	ps := []patch{{table: nat}, {table: filter}}
	for _, c := range write {
		if whole {
			c.edit = nil
		}
		p := &ps[slices.Index(tables, c.table)]
		p.write = append(p.write, c)
		l.tally.put(c.table, c.name, len(c.rules))
	}
	for name, table := range drop {
		p := &ps[slices.Index(tables, table)]
		p.drop = append(p.drop, name)
		l.tally.put(table, name, 0)
	}
	return ps
}

// writers is how many programs write at once: the kernel takes one transaction at a
// time, and meanwhile the other one reads its input.
const writers = 2

func (b *Backend) write(ctx context.Context, x tool, ps []patch) error {
	return b.perform(ctx, x, steps(x.flavour, ps))
}

// perform goes through steps. Those of a run that failed are the last.
func (b *Backend) perform(ctx context.Context, x tool, all [][]job) error {
	for _, step := range all {
		g, stop := errgroup.WithContext(ctx)
		g.SetLimit(writers)
		for _, r := range step {
			g.Go(func() error {
				if err := stop.Err(); err != nil {
					return err
				}
				return b.send(ctx, x, r, r.text())
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}
