package iptables

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
)

// patch is what is to be written of one table.
type patch struct {
	table   string
	write   []chain   // made or rewritten
	drop    []string  // emptied, and removed
	empty   []string  // emptied alone, since somebody else's rule leads there
	undo    []foreign // rules of the kernel's chains that are removed
	insert  []jump    // and that come first there
	removed int       // chains that were there before
}

func (p *patch) isEmpty() bool {
	return len(p.write)+len(p.drop)+len(p.empty)+len(p.undo)+len(p.insert) == 0
}

func (p *patch) rules() int {
	n := len(p.undo) + len(p.insert)
	for _, c := range p.write {
		n += len(c.rules)
	}
	return n
}

// maxBatch is how many chains the nft flavour gets at once. What it needs for a
// batch grows faster than the batch; the legacy flavour copies whole tables, and
// gets all at once.
const maxBatch = 400

// batches makes the input of one run of iptables-restore each. A chain comes
// after those that it leads to, so that no packet is led to where nothing is
// yet, and chains go last.
func batches(flavour Flavour, ps []patch) [][]byte {
	chains := 0
	for i := range ps {
		p := &ps[i]
		slices.SortFunc(p.write, func(a, b chain) int { return cmp.Or(rank(a.name)-rank(b.name), cmp.Compare(a.name, b.name)) })
		slices.Sort(p.drop)
		chains += len(p.write) + len(p.drop)
	}
	if flavour == Legacy || chains <= maxBatch {
		return one(ps)
	}
	var out [][]byte
	for _, p := range ps {
		for part := range slices.Chunk(p.write, maxBatch) {
			out = append(out, one([]patch{{table: p.table, write: part}})...)
		}
	}
	for _, p := range ps {
		out = append(out, one([]patch{{table: p.table, undo: p.undo, insert: p.insert, empty: p.empty}})...)
	}
	for _, p := range ps {
		for part := range slices.Chunk(p.drop, maxBatch) { // they may lead to each other
			out = append(out, one([]patch{{table: p.table, empty: part}})...)
		}
		for part := range slices.Chunk(p.drop, maxBatch) {
			out = append(out, one([]patch{{table: p.table, drop: part}})...)
		}
	}
	return out
}

// one makes one input, or none if there is nothing to write.
func one(ps []patch) [][]byte {
	var b bytes.Buffer
	for _, p := range ps {
		if p.isEmpty() {
			continue
		}
		put := func(parts ...string) { b.WriteString(strings.Join(parts, " ") + "\n") }
		put("*" + p.table)
		for _, c := range p.write {
			put(":"+c.name, "- [0:0]")
		}
		for _, n := range slices.Concat(p.empty, p.drop) {
			put(":"+n, "- [0:0]")
		}
		for _, c := range p.write {
			for _, r := range c.rules {
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
	if b.Len() == 0 {
		return nil
	}
	return [][]byte{b.Bytes()}
}

// rank orders chains so that each comes after those that it leads to.
func rank(name string) int {
	rest := name[strings.IndexByte(name, '-')+1:]
	kind, _, deep := strings.Cut(rest, "-")
	if i := slices.Index([]string{refuse, outsiders, toGroup, toCluster, toLocal, outside, gate}, kind); i >= 0 {
		return i
	}
	if slices.Contains(treeNames, kind) {
		if !deep {
			return 99
		}
		return 98 - depthOf(name)
	}
	if slices.Contains(entrances, rest) {
		return 101
	}
	return 100
}
