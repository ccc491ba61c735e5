package proxy

import "nodeagent/internal/net"

// owed is what the kernel took last, told from the model's table: of each address at
// which it may hold something else, what that was. Nil: it took nothing yet. So to know
// it costs what changed since, and nothing while all goes well.
type owed map[net.Address]*net.Entry

// add notes changes of the model that the kernel has not yet taken.
func (o owed) add(d *net.Diff) {
	if o == nil {
		return
	}
	for _, c := range d.Entries {
		a := addressOf(c)
		if _, ok := o[a]; !ok {
			o[a] = c.Old
		}
	}
}

func addressOf(c net.Change) net.Address {
	if c.New != nil {
		return c.New.Addr
	}
	return c.Old.Addr
}

// before makes of the model's table that which the kernel took, or nil.
func (o owed) before(t *net.Table) *net.Table {
	if o == nil {
		return nil
	}
	var back []net.Change
	for a, was := range o {
		if is := t.Entries[a]; is != was {
			back = append(back, net.Change{Old: is, New: was})
		}
	}
	out := t.Clone()
	out.Change(back)
	return out
}

// owing is what lies between a table that the kernel took and the model's.
func owing(took, model *net.Table) owed {
	out := owed{}
	for _, c := range between(took, model) {
		out[addressOf(c)] = c.Old
	}
	return out
}

// between lists the changes that lead from one table to another.
func between(from, to *net.Table) []net.Change {
	var out []net.Change
	for _, e := range to.Sorted() {
		if from.Entries[e.Addr] != e {
			out = append(out, net.Change{Old: from.Entries[e.Addr], New: e})
		}
	}
	for a, e := range from.Entries {
		if to.Entries[a] == nil {
			out = append(out, net.Change{Old: e})
		}
	}
	return out
}
