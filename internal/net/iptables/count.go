package iptables

import (
	"hash/maphash"

	"nodeagent/internal/net"
)

// tally is how many rules of ours a family has in each table: by chain, of whose name a
// hash is kept.
type tally struct {
	seed  maphash.Seed
	of    map[uint64]uint16
	total map[string]int // by table
	last  map[string]int // of which were written last
}

func newTally() *tally {
	return &tally{maphash.MakeSeed(), map[uint64]uint16{}, map[string]int{}, map[string]int{}}
}

// put notes that a chain has so many rules.
func (y *tally) put(table, name string, rules int) {
	key := maphash.String(y.seed, name)
	y.total[table] += rules - int(y.of[key])
	if y.of[key] = uint16(rules); rules == 0 {
		delete(y.of, key)
	}
}

// wrote notes what was written last.
func (y *tally) wrote(ps []patch) {
	clear(y.last)
	for i := range ps {
		y.last[ps[i].table] += ps[i].rules()
	}
}

// Counts tells how many rules there are. It is for who calls Sync and Apply.
func (b *Backend) Counts() net.Counts {
	var out net.Counts
	for _, l := range b.layouts {
		jumps := map[string]int{}
		for _, j := range l.jumps() {
			jumps[j.table]++
		}
		family := net.Family(4)
		if l.f.v6 {
			family = 6
		}
		for _, table := range tables {
			out.Rules = append(out.Rules, net.RuleCount{Table: table, Family: family, Total: l.tally.total[table] + jumps[table], Last: l.tally.last[table]})
		}
	}
	return out
}
