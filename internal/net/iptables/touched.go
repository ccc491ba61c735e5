package iptables

import (
	"maps"
	"slices"
)

// was is what a chain was before it changed. Rules are kept of those that hold items of
// a tree of any order.
type was struct {
	there bool
	rules []string
}

// touch notes a chain that is about to be another.
func (t *tree) touch(n *node, there bool) {
	if _, ok := t.touched[n.name]; ok {
		return
	}
	x := was{there: there}
	if there && t.anyOrder && n.kids == nil {
		x.rules = t.rules(n)
	}
	t.touched[n.name] = x
}

// changed are the chains that are to be written. Where rules only came to one, or few went,
// these are put into edits; chains that are to go are put into drop.
func (t *tree) changed(edits map[string]edit, drop map[string]string) (write []chain) {
	for name, was := range t.touched {
		n := t.nodes[name]
		if n == nil {
			if was.there {
				drop[name] = t.table
			}
			continue
		}
		rules := t.rules(n)
		e, few := between(was.rules, rules)
		switch {
		case few && e.rules() == 0:
			continue
		case few:
			edits[name] = e
		}
		write = append(write, chain{t.table, name, rules})
	}
	return write
}

// edit is what became of a chain in which the order of rules means nothing. All others of
// its rules are there.
type edit struct{ came, gone []string }

func (e edit) rules() int { return len(e.came) + len(e.gone) }

// between is what makes a chain another. It is not few where it is to be written whole.
func between(before, now []string) (e edit, few bool) {
	if len(before) == 0 {
		return e, false
	}
	there := make(map[string]bool, len(before))
	for _, r := range before {
		there[r] = true
	}
	for _, r := range now {
		if there[r] {
			delete(there, r)
		} else {
			e.came = append(e.came, r)
		}
	}
	e.gone = slices.Sorted(maps.Keys(there))
	return e, len(e.gone) == 0 || 2*e.rules() <= len(before)
}
