package iptables

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

// changed are the chains that are to be written. Where rules only came to a chain, these are
// put into more; chains that are to go are put into drop.
func (t *tree) changed(more map[string][]string, drop map[string]string) (write []chain) {
	for name, was := range t.touched {
		n := t.nodes[name]
		if n == nil {
			if was.there {
				drop[name] = t.table
			}
			continue
		}
		rules := t.rules(n)
		if came := added(was.rules, rules); came != nil {
			more[name] = came
		}
		write = append(write, chain{t.table, name, rules})
	}
	return write
}

// added are the rules that came to others that stayed; nil: there were none, or one went.
func added(before, now []string) []string {
	if len(before) == 0 || len(before) >= len(now) {
		return nil
	}
	there := make(map[string]bool, len(before))
	for _, r := range before {
		there[r] = true
	}
	var out []string
	for _, r := range now {
		if there[r] {
			delete(there, r)
		} else {
			out = append(out, r)
		}
	}
	if len(there) > 0 {
		return nil
	}
	return out
}
