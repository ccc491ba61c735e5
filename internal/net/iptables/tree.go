package iptables

import (
	"cmp"
	"maps"
	"slices"

	"nodeagent/internal/net"
)

// item is something that rules in a tree are about.
type item struct {
	at   net.Address
	kind net.Kind
	e    *net.Entry // none where the address says all
}

// tree is a tree of chains, each of few rules. What it looks like depends on the
// items alone, not on the order in which they came: a chain has branches if, and
// only if, more than maxItems are below it.
type tree struct {
	table  string
	root   *node
	step   step
	render func(item) []string

	// What the rules of an item are where its chain is below so many steps, which told
	// the protocol and the port. Nil: they are always the same.
	short func(item) []string
	told  int

	// anyOrder says that the order of a chain's rules means nothing, so that single rules
	// may come and go.
	anyOrder bool

	nodes   map[string]*node // by chain
	touched map[string]was   // chains that changed
}

// node is a chain: of items, or of branches.
type node struct {
	name  string
	depth int
	count int // items here and below
	items []item
	kids  map[string]*node
}

// maxItems is how many items a chain holds before it has branches.
const maxItems = 48

func newTree(table, name string, s step, render func(item) []string) *tree {
	t := &tree{table: table, root: &node{name: name}, step: s, render: render, anyOrder: anyOrder(name), nodes: map[string]*node{}, touched: map[string]was{}}
	t.nodes[name] = t.root
	return t
}

func compare(a, b net.Address) int {
	return cmp.Or(a.IP.Compare(b.IP), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Proto, b.Proto))
}

func place(in []item, at net.Address) (int, bool) {
	return slices.BinarySearchFunc(in, at, func(x item, a net.Address) int { return compare(x.at, a) })
}

func (t *tree) put(x item) { t.putAt(t.root, x) }

func (t *tree) putAt(n *node, x item) (added bool) {
	if n.kids != nil {
		if added = t.putAt(t.kid(n, x.at), x); added {
			n.count++
		}
		return added
	}
	t.touch(n, true)
	i, found := place(n.items, x.at)
	if found {
		n.items[i] = x
		return false
	}
	n.items = slices.Insert(n.items, i, x)
	if n.count++; n.count > maxItems {
		t.split(n)
	}
	return true
}

// kid is the branch to an address, made if there is none.
func (t *tree) kid(n *node, at net.Address) *node {
	name, _ := t.step(at, n.depth)
	if k := n.kids[name]; k != nil {
		return k
	}
	t.touch(n, true)
	full := n.name + name
	if n.depth == 0 {
		full = n.name + "-" + name
	}
	k := &node{name: full, depth: n.depth + 1}
	n.kids[name] = k
	t.touch(k, false)
	t.nodes[full] = k
	return k
}

func (t *tree) split(n *node) {
	if name, _ := t.step(n.items[0].at, n.depth); name == "" {
		return
	}
	items := n.items
	n.items, n.kids = nil, map[string]*node{}
	for _, x := range items {
		t.putAt(t.kid(n, x.at), x)
	}
}

func (t *tree) remove(at net.Address) { t.removeAt(t.root, at) }

func (t *tree) removeAt(n *node, at net.Address) (removed bool) {
	if n.kids == nil {
		i, found := place(n.items, at)
		if found {
			t.touch(n, true)
			n.items = slices.Delete(n.items, i, i+1)
			n.count--
		}
		return found
	}
	name, _ := t.step(at, n.depth)
	k := n.kids[name]
	if k == nil || !t.removeAt(k, at) {
		return false
	}
	n.count--
	switch {
	case n.count <= maxItems:
		t.touch(n, true)
		n.items = t.gather(n, nil)
		slices.SortFunc(n.items, func(a, b item) int { return compare(a.at, b.at) })
		n.kids = nil
	case k.count == 0:
		t.touch(n, true)
		delete(n.kids, name)
		t.forget(k)
	}
	return true
}

// gather takes the branches of a chain away and returns their items.
func (t *tree) gather(n *node, out []item) []item {
	for _, k := range n.kids {
		out = append(out, k.items...)
		out = t.gather(k, out)
		t.forget(k)
	}
	return out
}

func (t *tree) forget(n *node) {
	t.touch(n, true)
	delete(t.nodes, n.name)
}

// find is the item at an address; nil: there is none.
func (t *tree) find(at net.Address) *item {
	n := t.root
	for n != nil && n.kids != nil {
		name, _ := t.step(at, n.depth)
		n = n.kids[name]
	}
	if n == nil {
		return nil
	}
	if i, found := place(n.items, at); found {
		return &n.items[i]
	}
	return nil
}

// refresh takes an item whose rules are the same.
func (t *tree) refresh(x item) {
	if is := t.find(x.at); is != nil {
		*is = x
	}
}

// rules are a chain's. Branches are gone to, not called: what is not found goes
// on where the tree was called, and the way down costs the kernel no stack.
func (t *tree) rules(n *node) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(n.kids)) {
		k := n.kids[name]
		_, match := t.step(t.sample(k), n.depth)
		out = append(out, words(match, "-g", k.name))
	}
	render := t.render
	if t.short != nil && n.depth >= t.told {
		render = t.short
	}
	for _, x := range n.items {
		out = append(out, render(x)...)
	}
	return out
}

// sample is some address below a chain.
func (t *tree) sample(n *node) net.Address {
	for n.kids != nil {
		for _, k := range n.kids {
			n = k
			break
		}
	}
	return n.items[0].at
}

// each calls f for each chain of the tree.
func (t *tree) each(f func(chain)) {
	for _, n := range t.nodes {
		f(chain{t.table, n.name, t.rules(n)})
	}
}
