package iptables

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
)

// patch is what is to be written of one table.
type patch struct {
	table  string
	write  []rewrite
	drop   []string  // emptied, and removed
	empty  []string  // emptied alone, since somebody else's rule leads there
	undo   []foreign // rules of the kernel's chains that are removed
	insert []jump    // and that come first there
}

func (p *patch) isEmpty() bool {
	return len(p.write)+len(p.drop)+len(p.empty)+len(p.undo)+len(p.insert) == 0
}

func (p *patch) rules() int {
	n := len(p.undo) + len(p.insert)
	for _, c := range p.write {
		n += c.given()
	}
	return n
}

// job is what one iptables-restore is told: a transaction for each table of which
// there is something to write.
type job []patch

// What the nft flavour gets at once. What it needs for a run grows faster than the
// run; the legacy flavour copies whole tables, and gets all at once.
const (
	maxBatch = 400
	maxRules = 2600
	// maxRead is how many rules it reads to take some of them away, and is begun anew
	// where anybody writes meanwhile: 30 ms.
	maxRead = 5000
)

// steps are the runs that write patches. A chain comes after those that it leads to,
// so that no packet is led to where nothing is yet, and chains go last; the jumps of
// the kernel's chains come when all is there to which they lead: until then it has
// nothing to walk through. Runs of one step lead to nothing of each other. Where rules go
// one by one by runs of their own, what is new is there before.
func steps(flavour Flavour, ps []patch) [][]job {
	for i := range ps {
		ps[i].write = ranked(ps[i].write)
		slices.Sort(ps[i].drop)
	}
	ps = slices.DeleteFunc(slices.Clone(ps), func(p patch) bool { return p.isEmpty() })
	switch {
	case len(ps) == 0:
		return nil
	case flavour == Legacy || !many(ps) && !slices.ContainsFunc(ps, patch.apart):
		return [][]job{{ps}}
	}
	var out, gone [][]job
	var jumps, empty, drop []job
	for _, p := range ps {
		p, its := p.parted()
		out, gone = append(out, inOrder(p)...), append(gone, its...)
		if j := (patch{table: p.table, undo: p.undo, insert: p.insert, empty: p.empty}); !j.isEmpty() {
			jumps = append(jumps, job{j})
		}
		for part := range slices.Chunk(p.drop, maxBatch) { // they may lead to each other
			empty = append(empty, job{{table: p.table, empty: part}})
			drop = append(drop, job{{table: p.table, drop: part}})
		}
	}
	return slices.DeleteFunc(append(slices.Concat(out, gone), jumps, empty, drop), func(s []job) bool { return len(s) == 0 })
}

// many tells whether patches are more than one run takes.
func many(ps []patch) bool {
	chains, rules := 0, 0
	for _, p := range ps {
		chains += len(p.write) + len(p.drop)
		rules += p.rules()
	}
	return chains > maxBatch || rules > maxRules && chains > 1
}

// inOrder are the runs that write the chains of a patch. Those whose chains all have
// one rank are one step: no chain leads to one of its own rank. The roots of the trees and
// what leads to them are one run: a service that goes from one tree to another is never
// in none.
func inOrder(p patch) [][]job {
	var out [][]job
	last := -1
	for len(p.write) > 0 {
		n, rules := 1, p.write[0].given()
		top := rank(p.write[0].name) >= rootRank
		for n < len(p.write) && n < maxBatch && rules+p.write[n].given() <= maxRules && (top || rank(p.write[n].name) < rootRank) {
			rules += p.write[n].given()
			n++
		}
		part := p.write[:n]
		p.write = p.write[n:]
		first, end := rank(part[0].name), rank(part[n-1].name)
		if first != end || end != last {
			out = append(out, nil)
		}
		out[len(out)-1] = append(out[len(out)-1], job{{table: p.table, write: part}})
		if last = end; first != end {
			last = -1
		}
	}
	return out
}

// text is the input of iptables-restore.
func (r job) text() []byte {
	var b bytes.Buffer
	put := func(parts ...string) {
		for i, p := range parts {
			if i > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(p)
		}
		b.WriteByte('\n')
	}
	for _, p := range r {
		put("*" + p.table)
		for _, c := range p.write {
			if c.edit == nil { // which empties it
				put(":"+c.name, "- [0:0]")
			}
		}
		for _, n := range slices.Concat(p.empty, p.drop) {
			put(":"+n, "- [0:0]")
		}
		for _, c := range p.write {
			for _, r := range c.gone() {
				put("-D", c.name, r)
			}
			for _, r := range c.came() {
				put("-A", c.name, r)
			}
		}
		for _, x := range p.undo {
			put("-D", x.chain, x.rule)
		}
		for _, j := range p.insert {
			put("-I", j.from, "1", j.rule)
		}
		for _, n := range p.drop {
			put("-X", n)
		}
		put("COMMIT")
	}
	return b.Bytes()
}

// ranked sorts chains by rank, and then by name.
func ranked(cs []rewrite) []rewrite {
	type of struct {
		rank int
		rewrite
	}
	all := make([]of, 0, len(cs))
	for _, c := range cs {
		all = append(all, of{rank(c.name), c})
	}
	slices.SortFunc(all, func(a, b of) int { return cmp.Or(a.rank-b.rank, cmp.Compare(a.name, b.name)) })
	out := make([]rewrite, 0, len(all))
	for _, c := range all {
		out = append(out, c.rewrite)
	}
	return out
}

// rootRank is that of the roots of trees.
const rootRank = 99

// rank orders chains so that each comes after those that it leads to.
func rank(name string) int {
	rest := name[strings.IndexByte(name, '-')+1:]
	kind, _, deep := strings.Cut(rest, "-")
	if i := slices.Index([]string{refuse, outsiders, reached, toGroup, toCluster, toLocal, outside, gate}, kind); i >= 0 {
		return i
	}
	if slices.Contains(treeNames, kind) {
		if !deep {
			return rootRank
		}
		return rootRank - 1 - depthOf(name)
	}
	if slices.Contains(entrances, rest) {
		return rootRank + 2
	}
	return rootRank + 1
}
