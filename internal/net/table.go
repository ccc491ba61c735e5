package net

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Table is the whole of what a node does with service addresses.
type Table struct {
	Entries map[Address]*Entry // by cluster address
	Health  map[Key]Health

	clusterIPs addresses // of all entries
	here       addresses // Here of all entries
	ranges     []netip.Prefix
	edition    *Edition
}

// Edition is another one after each change of a table's entries or ranges: so who holds one
// can tell whether a table is still what it was.
type Edition struct{ _ byte }

// Edition returns that of now.
func (t *Table) Edition() *Edition { return t.edition }

func newTable() Table {
	return Table{map[Address]*Entry{}, map[Key]Health{}, addresses{}, addresses{}, nil, new(Edition)}
}

// Sorted returns the entries in the order of their addresses.
func (t *Table) Sorted() []*Entry {
	out := make([]*Entry, 0, len(t.Entries))
	for _, e := range t.Entries {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b *Entry) int { return a.Addr.compare(b.Addr) })
	return out
}

// ClusterIPs returns the cluster IPs that have an entry, sorted.
func (t *Table) ClusterIPs() []netip.Addr { return t.clusterIPs.sorted() }

// Here returns the addresses of endpoints on this node, sorted.
func (t *Table) Here() []netip.Addr { return t.here.sorted() }

// Ranges returns the ranges of which cluster IPs are drawn, as far as they are known,
// sorted; none is within another. An address of theirs that no entry has is nobody's.
func (t *Table) Ranges() []netip.Prefix { return t.ranges }

// addresses counts by how many entries an address is used.
type addresses map[netip.Addr]int32

func (as addresses) sorted() []netip.Addr {
	out := make([]netip.Addr, 0, len(as))
	for a := range as {
		out = append(out, a)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// count adds n to the count of a and notes in d what appeared or went.
func (as addresses) count(a netip.Addr, n int32, d addresses) {
	was := as[a]
	if was+n == 0 {
		delete(as, a)
	} else {
		as[a] = was + n
	}
	switch {
	case was == 0:
		d[a]++
	case was+n == 0:
		d[a]--
	}
}

// Change is an entry that appeared (no Old), went (no New) or is another one.
type Change struct{ Old, New *Entry }

func (c Change) addr() Address {
	if c.New != nil {
		return c.New.Addr
	}
	return c.Old.Addr
}

// Addresses is what changed in a set of addresses, each list sorted.
type Addresses struct{ Added, Removed []netip.Addr }

func (d addresses) changes() Addresses {
	var out Addresses
	for _, a := range d.sorted() {
		switch {
		case d[a] > 0:
			out.Added = append(out.Added, a)
		case d[a] < 0:
			out.Removed = append(out.Removed, a)
		}
	}
	return out
}

// Diff is what changed in a table since it was last asked.
type Diff struct {
	Entries    []Change // sorted by address
	ClusterIPs Addresses
	Here       Addresses
	Ranges     bool  // Table.Ranges are others: Backend.Sync takes them, and Apply need not
	Health     []Key // services whose Health changed, sorted
	Findings   []Key // services of which there is something else to say, sorted
}

// Empty tells whether a backend has nothing to do.
func (d *Diff) Empty() bool {
	return len(d.Entries) == 0 && !d.Ranges && len(d.ClusterIPs.Added)+len(d.ClusterIPs.Removed)+len(d.Here.Added)+len(d.Here.Removed) == 0
}

// Report says what a backend had to do to make the kernel hold a table.
type Report struct {
	Rebuilt  bool // the part that is the same for all services was missing or damaged
	Chains   int  // chains for services made, mended or removed
	Elements int  // entries or rules of services written or removed
}

// Clone returns a table of its own with the same entries.
func (t *Table) Clone() *Table {
	return &Table{maps.Clone(t.Entries), maps.Clone(t.Health), maps.Clone(t.clusterIPs), maps.Clone(t.here), t.ranges, t.edition}
}

// Change makes changes of entries, each of another address, and returns what a
// backend has to do for them.
func (t *Table) Change(all []Change) Diff {
	var d Diff
	t.change(slices.Clone(all), &d)
	return d
}

func (t *Table) change(all []Change, d *Diff) {
	ips, here := addresses{}, addresses{}
	if len(all) > 0 {
		t.edition = new(Edition)
	}
	for _, c := range all {
		t.count(c.Old, -1, ips, here)
		t.count(c.New, 1, ips, here)
		if c.New == nil {
			delete(t.Entries, c.Old.Addr)
		} else {
			t.Entries[c.New.Addr] = c.New
		}
	}
	slices.SortFunc(all, func(a, b Change) int { return a.addr().compare(b.addr()) })
	d.Entries, d.ClusterIPs, d.Here = all, ips.changes(), here.changes()
}

func (t *Table) count(e *Entry, n int32, ips, here addresses) {
	if e == nil {
		return
	}
	t.clusterIPs.count(e.Addr.IP, n, ips)
	for _, a := range e.Here {
		t.here.count(a, n, here)
	}
}

// Build makes the table of a whole cluster at once.
func Build(services []*corev1.Service, endpoints []*discoveryv1.EndpointSlice, node Node) *Table {
	m := NewModel(node)
	for _, s := range services {
		m.SetService(s)
	}
	for _, s := range endpoints {
		m.SetSlice(s)
	}
	m.Take()
	return m.Table()
}
