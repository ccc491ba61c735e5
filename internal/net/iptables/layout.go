package iptables

import (
	"fmt"
	"net/netip"
	"slices"

	"nodeagent/internal/net"
)

// The tables.
const (
	nat    = "nat"
	filter = "filter"
)

var tables = []string{nat, filter}

// chain is one of ours. Its rules are as iptables-save prints them, without the
// chain's name.
type chain struct {
	table, name string
	rules       []string
}

// layout is what one family of the kernel shall have, and what of it changed.
// Chains of services are not kept: they follow from the entry.
type layout struct {
	f         fam
	prefix    string
	fromPods  []string // matches, each of which tells that a pod sent a packet
	invalid   bool     // let through what belongs to no connection
	nodePorts []netip.Prefix
	anyNode   bool // node ports at all addresses
	mark      string
	all       bool // masquerade everybody

	ranges []netip.Prefix // of which cluster IPs are drawn

	slots                     [maxSlots]*tree
	names, ips, ports, hair   *tree
	closed, closedPorts, rest *tree

	tally *tally

	write map[string]chain  // chains of services that changed
	drop  map[string]string // those that went, with their table
	late  late              // what is to go after all else
}

func newLayout(cfg Config, mark uint32, f fam, ranges []netip.Prefix) *layout {
	l := &layout{
		f: f, prefix: cfg.Prefix, all: cfg.MasqueradeAll, mark: fmt.Sprintf("0x%x/0x%x", mark, mark),
		invalid: cfg.KeepInvalid, nodePorts: f.of(cfg.NodePorts), anyNode: len(cfg.NodePorts) == 0, ranges: f.of(ranges),
		tally: newTally(), write: map[string]chain{}, drop: map[string]string{}, late: late{drop: map[string]string{}},
	}
	for _, p := range f.of(cfg.Pods) {
		l.fromPods = append(l.fromPods, within("-s", p))
	}
	for _, name := range cfg.PodInterfaces {
		l.fromPods = append(l.fromPods, "-i "+name)
	}
	for i := range l.slots {
		t := newTree(nat, l.name(slotName(i)), byPortAndAddress(f), l.translate(i, to))
		t.short, t.told = l.translate(i, toAddress), wholePort
		l.slots[i] = t
	}
	l.names = newTree(nat, l.name(names), byAddressAndPort(f), l.called)
	l.ips = newTree(nat, l.name(addresses), byAddressAndPort(f), l.open)
	l.ports = newTree(nat, l.name(ports), byPort, l.open)
	l.hair = newTree(nat, l.name(hairpin), byAddress(f, "-s"), l.itself)
	l.closed = newTree(filter, l.name(closedIPs), byAddressAndPort(f), l.shut)
	l.closedPorts = newTree(filter, l.name(closedPorts), byPort, l.shut)
	l.rest = newTree(filter, l.name(unknown), byAddress(f, "-d"), l.refused)
	return l
}

func (l *layout) trees() []*tree {
	return append(l.slots[:], l.names, l.ips, l.ports, l.hair, l.closed, l.closedPorts, l.rest)
}

// leaf is an item and the tree in which it is.
type leaf struct {
	in *tree
	item
}

// apply takes the changes of a diff, but for what is to go late.
func (l *layout) apply(d *net.Diff) {
	for _, x := range d.Entries { // what goes first: an address may move from one to another
		if x.Old != nil && l.f.has(x.Old.Addr.IP) {
			l.without(x)
		}
	}
	for _, x := range d.Entries {
		if x.New != nil && l.f.has(x.New.Addr.IP) {
			l.with(x)
		}
	}
	l.moveRest(d.ClusterIPs)
	l.move(l.hair, d.Here)
}

// moveRest leaves out what a range refuses as a whole.
func (l *layout) moveRest(as net.Addresses) {
	l.move(l.rest, net.Addresses{Added: slices.DeleteFunc(slices.Clone(as.Added), l.ranged), Removed: as.Removed})
}

// plant puts an entry that is there from the start into the trees.
func (l *layout) plant(e *net.Entry) {
	if !l.f.has(e.Addr.IP) {
		return
	}
	for _, x := range l.leaves(e) {
		x.in.put(x.item)
	}
}

func (l *layout) move(t *tree, as net.Addresses) {
	for _, a := range as.Removed {
		if l.f.has(a) {
			t.remove(net.Address{IP: a})
		}
	}
	for _, a := range as.Added {
		if l.f.has(a) {
			t.put(item{at: net.Address{IP: a}})
		}
	}
}

func (l *layout) without(x net.Change) {
	stay := map[string]bool{}
	turns := x.New != nil && l.slotted(x.Old) != l.slotted(x.New)
	var leaves []leaf
	if x.New != nil {
		for _, c := range l.chains(x.New) {
			stay[c.name] = true
		}
		leaves = l.leaves(x.New)
	}
	for _, c := range l.chains(x.Old) {
		switch {
		case stay[c.name]:
		case turns:
			l.late.drop[c.name] = c.table
		default:
			l.drop[c.name] = c.table
		}
	}
	for _, old := range l.leaves(x.Old) {
		switch {
		case slices.ContainsFunc(leaves, old.samePlace):
		case turns:
			l.late.leaves = append(l.late.leaves, old)
		default:
			old.in.remove(old.at)
		}
	}
}

func (a leaf) samePlace(b leaf) bool { return a.in == b.in && a.at == b.at }

func (l *layout) with(x net.Change) {
	was := map[string][]string{}
	var leaves []leaf
	if x.Old != nil {
		for _, c := range l.chains(x.Old) {
			was[c.name] = c.rules
		}
		leaves = l.leaves(x.Old)
	}
	for _, c := range l.chains(x.New) {
		if old, ok := was[c.name]; !ok || !slices.Equal(old, c.rules) {
			l.write[c.name] = c
		}
	}
	for _, y := range l.leaves(x.New) {
		i := slices.IndexFunc(leaves, y.samePlace)
		if i >= 0 && slices.Equal(y.in.render(leaves[i].item), y.in.render(y.item)) {
			y.in.refresh(y.item)
		} else {
			y.in.put(y.item)
		}
	}
}

// take returns the chains that are to be written and those that are to go, by
// name with their table, since it was last asked.
func (l *layout) take() (write []rewrite, drop map[string]string) {
	for name, c := range l.write {
		write = append(write, rewrite{chain: c})
		delete(l.drop, name)
	}
	drop = l.drop
	for _, t := range l.trees() {
		write = append(write, t.changed(drop)...)
	}
	l.forgetTouched()
	return write, drop
}

func (l *layout) forgetTouched() {
	l.write, l.drop = map[string]chain{}, map[string]string{}
	for _, t := range l.trees() {
		clear(t.touched)
	}
}

// each calls f for each chain that shall be there.
func (l *layout) each(t *net.Table, f func(chain)) {
	for _, e := range t.Entries {
		if l.f.has(e.Addr.IP) {
			for _, c := range l.chains(e) {
				f(c)
			}
		}
	}
	for _, t := range l.trees() {
		t.each(f)
	}
	for _, c := range l.fixed() {
		f(c)
	}
}
