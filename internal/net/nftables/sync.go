package nftables

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/nftables"

	"nodeagent/internal/net"
)

// Sync reads what the kernel holds and makes it hold exactly the table, in one
// transaction: no packet sees it half. Where nothing differs it changes nothing,
// so that a daemon that starts again cuts nobody off.
func (b *Backend) Sync(ctx context.Context, t *net.Table) (net.Report, error) {
	c, err := b.open(ctx)
	if err != nil {
		return net.Report{}, b.end(err)
	}
	r, err := b.sync(c, t)
	if moved(err) { // somebody wrote between our look and our change
		r, err = b.sync(c, t)
	}
	if err != nil {
		return r, b.end(judged(fmt.Errorf("program service rules: %w", err)))
	}
	return r, nil
}

func (b *Backend) sync(c *nftables.Conn, t *net.Table) (net.Report, error) {
	have, want, err := b.compare(c, t)
	if err != nil {
		return net.Report{}, err
	}
	r := net.Report{Rebuilt: !have.whole}
	if r.Rebuilt {
		if err := b.writeFixed(c); err != nil {
			return r, err
		}
		have.chains, have.elements = nil, nil
	}
	stale := b.syncChains(c, have.chains, &r)
	if r.Elements, err = b.writeChanges(c, have.elements, want); err != nil {
		return r, err
	}
	r.Chains += len(stale)
	if err := b.flush(c, r.Elements); err != nil {
		return r, err
	}
	if r.Elements == 0 && r.Chains == 0 && !r.Rebuilt {
		b.known = true
		return r, nil
	}
	if err := b.check(c, t, want); err != nil {
		return r, err
	}
	b.known = true
	return r, b.sweep(c, stale)
}

// check holds what the kernel has against what was written: it takes over-long
// messages in part and says nothing. What one does not count is read.
func (b *Backend) check(c *nftables.Conn, t *net.Table, want elements) error {
	now, err := b.readShape(c)
	if err != nil || now.whole && counted(now.sets, want) {
		return err
	}
	if now, want, err = b.compare(c, t); err != nil {
		return err
	}
	if gone, lost := differ(now.elements, want); !now.whole || len(gone)+len(lost) > 0 {
		return fmt.Errorf("%w: %d elements are missing and %d too many", errUnlike, len(lost), len(gone))
	}
	return nil
}

// maxLooks is how often the kernel is asked before it is believed that it lacks
// something.
const maxLooks = 4

// compare reads what is there and makes what shall be.
func (b *Backend) compare(c *nftables.Conn, t *net.Table) (state, elements, error) {
	return b.compareWith(func() (state, error) { return b.read(c) }, t)
}

// compareWith: after many elements were added the kernel makes more room for them in
// the background, and a dump that runs meanwhile misses some. An element is there if
// one of some looks saw it. Each costs a second where there are ten thousand services,
// and nobody is served meanwhile who lacks one: so it is not looked again where the
// kernel counts no more than was seen, or the last look saw nothing new.
func (b *Backend) compareWith(look func() (state, error), t *net.Table) (state, elements, error) {
	have, err := look()
	was := maps.Clone(b.numbers)
	want := b.want(t, have.elements)
	for looks := 1; err == nil && have.whole && looks < maxLooks && lacksAny(have.elements, want) && !counted(have.sets, have.elements); looks++ {
		seen := len(have.elements)
		var again state
		again, err = look()
		maps.Copy(again.elements, have.elements)
		have, b.numbers = again, maps.Clone(was)
		want = b.want(t, have.elements)
		if len(have.elements) == seen {
			break
		}
	}
	return have, want, err
}

func lacksAny(have, want elements) bool {
	for s := range want {
		if _, ok := have[s]; !ok {
			return true
		}
	}
	return false
}

// want makes all elements, taking over the numbers of chains and the order of
// endpoints that are there, and counts the chains that they need.
func (b *Backend) want(t *net.Table, have elements) elements {
	clear(b.picks)
	clear(b.orders)
	for _, e := range t.Entries {
		for _, p := range picksOf(e) {
			b.picks[p]++
		}
	}
	b.numbers.keep(b.picks)
	b.numbers.assign(b.sortedPicks(), have)
	els, orders := elements{}, ordersOf(have)
	for _, e := range t.Entries {
		was := orders.of(e)
		s := shape{arrange(was.cluster, e.Cluster), arrange(was.local, e.Local)}
		b.setShape(e, s)
		els.put(e, s, b.numbers)
	}
	for p := range b.picks {
		b.numbers.put(els, p)
	}
	els.putReasons()
	for _, a := range t.ClusterIPs() {
		els.putAddress(clusterIPs, a)
	}
	for _, a := range t.Here() {
		els.putAddress(hairpin, a)
	}
	for _, p := range t.Ranges() {
		els.putRange(p)
	}
	return els
}

// syncChains queues the picking chains that are missing or damaged, and returns
// those that nobody needs.
func (b *Backend) syncChains(c *nftables.Conn, have map[string][]rule, r *net.Report) []string {
	var stale []string
	wanted := map[string]bool{}
	for _, p := range b.sortedPicks() {
		name := p.name()
		wanted[name] = true
		rules, there := have[name]
		switch {
		case !there:
			b.writePick(c, p)
		case !alike(rules, b.rulesOf(p)):
			c.FlushChain(&nftables.Chain{Name: name, Table: b.table})
			b.writeRules(c, name, b.rulesOf(p))
		default:
			continue
		}
		r.Chains++
	}
	for name := range have {
		if !wanted[name] {
			stale = append(stale, name)
		}
	}
	slices.Sort(stale)
	return stale
}

func (b *Backend) sortedPicks() []pick { return sortPicks(slices.Collect(maps.Keys(b.picks))) }

// sortPicks puts chains behind those that they name.
func sortPicks(all []pick) []pick {
	rank := func(p pick) int { // mixed ones name all others, and no other names one that picks
		if p.keeps() {
			return -1
		}
		return int(p.how)
	}
	slices.SortFunc(all, func(a, b pick) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.n, b.n), cmp.Compare(a.name(), b.name()))
	})
	return all
}

// deleteChains queues the removal of chains, emptied first, since they may name
// each other.
func (b *Backend) deleteChains(c *nftables.Conn, names []string) {
	for _, n := range names {
		c.FlushChain(&nftables.Chain{Name: n, Table: b.table})
	}
	for _, n := range names {
		c.DelChain(&nftables.Chain{Name: n, Table: b.table})
	}
}

// Apply makes the changes of a diff in one transaction; t is the table after
// it. If the kernel holds something else than expected, or that is not known,
// it does a Sync.
func (b *Backend) Apply(ctx context.Context, t *net.Table, d *net.Diff) error {
	if !b.known {
		_, err := b.Sync(ctx, t)
		return err
	}
	if d.Empty() {
		return nil
	}
	c, err := b.open(ctx)
	if err != nil {
		return b.end(err)
	}
	stale, err := b.apply(c, d)
	switch {
	case moved(err):
		_ = b.end(err)
		_, err = b.Sync(ctx, t)
		return err
	case err != nil:
		return b.end(judged(fmt.Errorf("change service rules: %w", err)))
	}
	return b.sweep(c, stale)
}

// apply queues and sends the changes, and returns the chains that nobody needs
// any more.
func (b *Backend) apply(c *nftables.Conn, d *net.Diff) ([]string, error) {
	x := b.changes(d)
	for _, p := range x.fresh {
		b.writePick(c, p)
	}
	n, err := b.writeChanges(c, x.have, x.want)
	if err != nil {
		return nil, err
	}
	return names(x.stale), b.flush(c, n)
}

// changes is what a diff makes of what the kernel has.
type changes struct {
	fresh, stale []pick   // chains that have their first user, and that lost their last
	have, want   elements // of what changes, as it is and as it shall be
}

// changes makes them, and takes them for made.
func (b *Backend) changes(d *net.Diff) changes {
	out := changes{have: elements{}, want: elements{}}
	out.fresh, out.stale = b.countPicks(d)
	b.numbers.assign(out.fresh, nil)
	for _, p := range out.fresh {
		b.numbers.put(out.want, p)
	}
	for _, p := range out.stale {
		b.numbers.put(out.have, p)
	}
	for _, x := range d.Entries {
		b.change(x, out.have, out.want)
	}
	b.numbers.keep(b.picks)
	for set, x := range map[string]net.Addresses{clusterIPs: d.ClusterIPs, hairpin: d.Here} {
		for _, a := range x.Removed {
			out.have.putAddress(set, a)
		}
		for _, a := range x.Added {
			out.want.putAddress(set, a)
		}
	}
	return out
}

// change adds what the kernel has of an entry and what it shall have.
func (b *Backend) change(x net.Change, have, want elements) {
	var was shape
	if x.Old != nil {
		was = b.shapeOf(x.Old)
		have.put(x.Old, was, b.numbers)
	}
	if x.New == nil {
		b.setShape(x.Old, shape{})
		return
	}
	s := shape{arrange(was.cluster, x.New.Cluster), arrange(was.local, x.New.Local)}
	b.setShape(x.New, s)
	want.put(x.New, s, b.numbers)
}

func (b *Backend) shapeOf(e *net.Entry) shape {
	return shape{b.order(pool{e.Addr, false}, e.Cluster), b.order(pool{e.Addr, true}, e.Local)}
}

func (b *Backend) setShape(e *net.Entry, s shape) {
	b.setOrder(pool{e.Addr, false}, s.cluster, e.Cluster)
	b.setOrder(pool{e.Addr, true}, s.local, e.Local)
}

// countPicks counts the users of chains anew: which have their first, and which
// lost their last.
func (b *Backend) countPicks(d *net.Diff) (fresh, stale []pick) {
	was := map[pick]int{}
	add := func(e *net.Entry, n int) {
		if e == nil {
			return
		}
		for _, p := range picksOf(e) {
			if _, ok := was[p]; !ok {
				was[p] = b.picks[p]
			}
			b.picks[p] += n
		}
	}
	for _, x := range d.Entries {
		add(x.New, 1)
		add(x.Old, -1)
	}
	for p, n := range was {
		switch {
		case n == 0 && b.picks[p] > 0:
			fresh = append(fresh, p)
		case n > 0 && b.picks[p] == 0:
			stale = append(stale, p)
		}
		if b.picks[p] == 0 {
			delete(b.picks, p)
		}
	}
	return sortPicks(fresh), sortPicks(stale)
}

func names(all []pick) []string {
	var out []string
	for _, p := range all {
		out = append(out, p.name())
	}
	return out
}

// sweep removes chains that lost their last user, in a transaction of its own:
// kernels before 6.2 forget only later that a removed element led to a chain.
// If one is still busy the next Sync removes it.
func (b *Backend) sweep(c *nftables.Conn, names []string) error {
	if len(names) == 0 {
		return nil
	}
	b.deleteChains(c, names)
	err := c.Flush()
	if err == nil {
		return nil
	}
	b.unswept++
	_ = b.end(err)
	if moved(err) {
		return nil
	}
	return fmt.Errorf("remove chains that nobody needs: %w", err)
}

// Counts tells how often that went wrong. It is for who calls Sync and Apply.
func (b *Backend) Counts() net.Counts { return net.Counts{CleanupFailures: b.unswept} }

// Remove takes the whole table out of the kernel.
func (b *Backend) Remove(ctx context.Context) error {
	c, err := b.open(ctx)
	if err != nil {
		return b.end(err)
	}
	c.AddTable(b.table)
	c.DelTable(b.table)
	b.known = false
	if err := c.Flush(); err != nil {
		return b.end(errors.Join(fmt.Errorf("remove table %s", b.cfg.Table), err))
	}
	return nil
}
