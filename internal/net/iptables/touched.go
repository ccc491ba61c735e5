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

// changed are the chains that are to be written: where rules only came to one, or few went,
// these alone. Chains that are to go are put into drop.
func (t *tree) changed(drop map[string]string) (write []rewrite) {
	for name, was := range t.touched {
		n := t.nodes[name]
		if n == nil {
			if was.there {
				drop[name] = t.table
			}
			continue
		}
		c := rewrite{chain: chain{t.table, name, t.rules(n)}}
		if e, few := between(was.rules, c.rules); few {
			c.edit = &e
		}
		if c.given() > 0 || c.edit == nil {
			write = append(write, c)
		}
	}
	return write
}

// edit is what became of a chain in which the order of rules means nothing. All others of
// its rules are there.
type edit struct{ came, gone []string }

// rewrite is a chain that is made, or becomes another.
type rewrite struct {
	chain
	edit *edit // nil: it is written whole
}

// came are the rules that a program is to add.
func (c *rewrite) came() []string {
	if c.edit == nil {
		return c.rules
	}
	return c.edit.came
}

// gone are those that it is to take away one by one.
func (c *rewrite) gone() []string {
	if c.edit == nil {
		return nil
	}
	return c.edit.gone
}

// given is how many rules a program is told of.
func (c *rewrite) given() int { return len(c.came()) + len(c.gone()) }

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
	return e, len(e.gone) == 0 || 2*(len(e.came)+len(e.gone)) <= len(before)
}
