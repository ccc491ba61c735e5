package iptables

import (
	"maps"

	"nodeagent/internal/net"
)

// late is what services leave that get a chain, or lose theirs. Where a change takes many
// runs, it goes when all that is new is there: otherwise such a service would be in no tree
// between two of them.
type late struct {
	leaves []leaf
	drop   map[string]string
}

// inOneRun is how many entries may change so that it surely takes one run.
const inOneRun = 5

// rounds makes the changes of a diff, and returns what is to be written, one after another.
func (l *layout) rounds(d *net.Diff) [][]patch {
	if len(d.Entries) <= inOneRun {
		l.apply(d)
		return [][]patch{patches(l)}
	}
	l.late = &late{drop: map[string]string{}}
	defer func() { l.late = nil }()
	l.apply(d)
	out := [][]patch{patches(l)}
	if len(l.late.leaves)+len(l.late.drop) == 0 {
		return out
	}
	for _, y := range l.late.leaves {
		if is := y.in.find(y.at); is != nil && is.e == y.e { // or another service has it now
			y.in.remove(y.at)
		}
	}
	maps.Copy(l.drop, l.late.drop)
	return append(out, patches(l))
}
