package net

import (
	"cmp"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
)

// maxRanges bounds how many ranges of addresses there are rules for.
const maxRanges = 256

// ranges are those of which cluster IPs are drawn, by the ServiceCIDR that has them.
type ranges struct {
	of    map[string][]netip.Prefix
	moved bool
}

// SetServiceCIDR takes a ServiceCIDR that is new or has changed. It keeps nothing of in.
func (m *Model) SetServiceCIDR(in *networkingv1.ServiceCIDR) {
	var all []netip.Prefix
	for _, s := range in.Spec.CIDRs {
		if p, err := netip.ParsePrefix(s); err == nil && !p.Addr().Is4In6() {
			all = append(all, p.Masked())
		}
	}
	if was, had := m.ranges.of[in.Name]; !had || !slices.Equal(was, all) {
		m.ranges.of[in.Name], m.ranges.moved = all, true
	}
}

// DeleteServiceCIDR forgets one.
func (m *Model) DeleteServiceCIDR(name string) {
	if _, had := m.ranges.of[name]; had {
		delete(m.ranges.of, name)
		m.ranges.moved = true
	}
}

// KeepServiceCIDRs forgets those that a complete list does not have.
func (m *Model) KeepServiceCIDRs(listed func(Key) bool) {
	for name := range m.ranges.of {
		if !listed(Key{Name: name}) {
			m.DeleteServiceCIDR(name)
		}
	}
}

// takeRanges brings the table's ranges up to date.
func (m *Model) takeRanges(d *Diff) {
	if !m.ranges.moved {
		return
	}
	m.ranges.moved = false
	if now := m.ranges.table(m.node); !slices.Equal(now, m.table.ranges) {
		m.table.ranges, m.table.edition, d.Ranges = now, new(Edition), true
	}
}

// table is what the table has of them: sorted, none within another, and none that has an
// address of the node, which would be cut off.
func (r *ranges) table(n Node) []netip.Prefix {
	var all []netip.Prefix
	for _, ps := range r.of {
		all = append(all, ps...)
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		return cmp.Or(cmp.Compare(a.Bits(), b.Bits()), a.Addr().Compare(b.Addr()))
	})
	var out []netip.Prefix
	for _, p := range all {
		if len(out) < maxRanges && !slices.ContainsFunc(n.Addrs, p.Contains) && !slices.ContainsFunc(out, p.Overlaps) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return out
}
