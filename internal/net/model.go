package net

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Model holds Services and EndpointSlices in a compact form and the table that
// they make. A change costs what the services cost that it concerns.
type Model struct {
	node   Node
	groups map[Key]*group
	owners map[Key]Key // of each slice, its Service
	claims claims
	table  Table
	dirty  map[Key]bool
	ranges ranges
	others map[Key]string // Services that are ignored, and why
}

// group is a Service and its slices; either may be missing.
type group struct {
	svc      *service
	slices   []*slice // sorted by name
	entries  []*Entry // in the table
	findings []Finding
	refused  string // why no kernel takes its rules, as they are now; "": one does
}

// NewModel returns an empty model of the node.
func NewModel(n Node) *Model {
	return &Model{n, map[Key]*group{}, map[Key]Key{}, newClaims(), newTable(), map[Key]bool{}, ranges{of: map[string][]netip.Prefix{}}, map[Key]string{}}
}

// Table returns the table as of the last Take. Take changes it.
func (m *Model) Table() *Table { return &m.table }

// Findings returns what there is to say of a service, as of the last Take.
func (m *Model) Findings(k Key) []Finding {
	if g := m.groups[k]; g != nil {
		return g.findings
	}
	return nil
}

func (m *Model) mark(k Key) { m.dirty[k] = true }

func (m *Model) group(k Key) *group {
	g := m.groups[k]
	if g == nil {
		g = &group{}
		m.groups[k] = g
	}
	g.refused = "" // it is another one now: it may be tried
	m.mark(k)
	return g
}

// LeaveOut takes a service out of the table, until it or one of its slices
// changes: the kernel does not take its rules, and why.
func (m *Model) LeaveOut(k Key, why string) {
	if g := m.groups[k]; g != nil {
		g.refused = why
		m.mark(k)
	}
}

// KeepServices forgets the Services that a complete list does not have.
func (m *Model) KeepServices(listed func(Key) bool) {
	for k, g := range m.groups {
		if g.svc != nil && !listed(k) {
			m.DeleteService(k)
		}
	}
	for k := range m.others {
		if !listed(k) {
			m.DeleteService(k)
		}
	}
}

// KeepSlices forgets the EndpointSlices that a complete list does not have.
func (m *Model) KeepSlices(listed func(Key) bool) {
	for k := range m.owners {
		if !listed(k) {
			m.DeleteSlice(k)
		}
	}
}

// Dirty tells whether Take has something to do.
func (m *Model) Dirty() bool { return len(m.dirty) > 0 || m.ranges.moved }

// SetService takes a Service that is new or has changed. It keeps nothing of in.
func (m *Model) SetService(in *corev1.Service) {
	k := Key{in.Namespace, in.Name}
	if why := ignored(in); why != "" {
		m.others[k] = why
	} else {
		delete(m.others, k)
	}
	m.setService(k, newService(in))
}

// DeleteService forgets a Service; its slices may stay.
func (m *Model) DeleteService(k Key) {
	delete(m.others, k)
	m.setService(k, nil)
}

func (m *Model) setService(k Key, s *service) {
	if m.groups[k] == nil && s == nil {
		return
	}
	g := m.group(k)
	if g.svc != nil {
		m.claims.remove(g.svc, m.mark)
	}
	if g.svc = s; s != nil {
		m.claims.add(s, m.mark)
	}
}

// SetSlice takes an EndpointSlice that is new or has changed. It keeps nothing
// of in.
func (m *Model) SetSlice(in *discoveryv1.EndpointSlice) {
	k, s := Key{in.Namespace, in.Name}, newSlice(in, m.node.Name)
	if owner, ok := m.owners[k]; ok && (s == nil || s.owner != owner) {
		m.DeleteSlice(k)
	}
	if s == nil {
		return
	}
	m.owners[k] = s.owner
	g := m.group(s.owner)
	if i, found := g.find(s.name); found {
		g.slices[i] = s
	} else {
		g.slices = slices.Insert(g.slices, i, s)
	}
}

// DeleteSlice forgets an EndpointSlice.
func (m *Model) DeleteSlice(k Key) {
	owner, ok := m.owners[k]
	if !ok {
		return
	}
	delete(m.owners, k)
	g := m.group(owner)
	if i, found := g.find(k.Name); found {
		g.slices = slices.Delete(g.slices, i, i+1)
	}
}

func (g *group) find(name string) (int, bool) {
	return slices.BinarySearchFunc(g.slices, name, func(s *slice, n string) int {
		switch {
		case s.name < n:
			return -1
		case s.name > n:
			return 1
		}
		return 0
	})
}

// SetNode takes new facts of the node; its name must stay what it was.
func (m *Model) SetNode(n Node) {
	if n.equal(m.node) {
		return
	}
	n.Name = m.node.Name
	m.node = n
	m.ranges.moved = len(m.ranges.of) > 0
	for k := range m.groups {
		m.mark(k)
	}
}

// Take brings the table up to date and returns what changed since the last call.
func (m *Model) Take() Diff {
	keys := make([]Key, 0, len(m.dirty))
	for k := range m.dirty {
		keys = append(keys, k)
	}
	m.dirty = map[Key]bool{} // an empty one that held all services would be walked as one that does
	slices.SortFunc(keys, Key.compare)
	var d Diff
	changed := map[Address]Change{}
	for _, k := range keys {
		if m.groups[k] != nil {
			m.take(k, &d, changed)
		}
	}
	made := make([]Change, 0, len(changed))
	for _, c := range changed {
		if c.Old != c.New {
			made = append(made, c)
		}
	}
	m.table.change(made, &d)
	m.takeRanges(&d)
	return d
}

// take resolves one service anew.
func (m *Model) take(k Key, d *Diff, changed map[Address]Change) {
	g := m.groups[k]
	entries, bad := m.resolve(g)
	for _, e := range g.entries {
		c := changed[e.Addr]
		c.Old = e
		changed[e.Addr] = c
	}
	for i, e := range entries {
		c := changed[e.Addr]
		if c.Old != nil && c.Old.equal(e) {
			e = c.Old
			entries[i] = e
		}
		c.New = e
		changed[e.Addr] = c
	}
	g.entries = entries
	if !slices.Equal(bad, g.findings) {
		g.findings = bad
		d.Findings = append(d.Findings, k)
	}
	was, had := m.table.Health[k]
	is, has := m.healthOf(g)
	if has {
		m.table.Health[k] = is
	} else {
		delete(m.table.Health, k)
	}
	if had != has || was != is {
		d.Health = append(d.Health, k)
	}
	if g.svc == nil && len(g.slices) == 0 {
		delete(m.groups, k)
	}
}
