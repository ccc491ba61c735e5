package iptables

const (
	// inOther is about how many rules a chain has that goes, or that a rule leads to.
	inOther = 10
	// aRun is what a run more costs, in rules that are read: 2 ms.
	aRun = 300
)

// apart tells whether what goes one by one is to go by runs of its own. To take a rule away
// by its text the nft flavour's program reads all chains that it is told of, and those that
// rules lead to which it is given: 6 to 7 µs a rule, a quarter of what one costs that is
// written.
func (p patch) apart() bool {
	goes, read, other := false, 0, inOther*len(p.drop)
	for _, c := range p.write {
		goes = goes || len(c.gone()) > 0
		if c.edit == nil {
			other += inOther * len(c.rules)
		} else {
			read += len(c.rules)
		}
	}
	return goes && (other > aRun || read > maxRead)
}

// parted is a patch without what goes one by one, and the steps that take that away: one
// run each, since who writes meanwhile has another one read anew.
func (p patch) parted() (rest patch, gone [][]job) {
	var take []rewrite
	rest = p
	rest.write = nil
	for _, c := range p.write {
		if len(c.gone()) > 0 {
			take = append(take, rewrite{c.chain, &edit{gone: c.edit.gone}})
			if c.edit = (&edit{came: c.edit.came}); len(c.edit.came) == 0 {
				continue
			}
		}
		rest.write = append(rest.write, c)
	}
	for len(take) > 0 {
		n, read := 1, len(take[0].rules)
		for n < len(take) && read+len(take[n].rules) <= maxRead {
			read += len(take[n].rules)
			n++
		}
		gone = append(gone, []job{{{table: p.table, write: take[:n]}}})
		take = take[n:]
	}
	return rest, gone
}
