package iptables

import (
	"maps"

	"nodeagent/internal/net"
)

// late is what services leave that get a chain, or lose theirs. It goes when all that is
// new is there: where that takes many runs, such a service would otherwise be in no tree
// between two of them.
type late struct {
	leaves []leaf
	drop   map[string]string // chains, with their table
}

// isLate tells whether the last changes were made in two rounds.
func (l *layout) isLate() bool { return len(l.late.leaves)+len(l.late.drop) > 0 }

// rounds makes the changes of a diff, and returns what is to be written, one after another.
func (l *layout) rounds(d *net.Diff, whole bool) [][]patch {
	l.late = late{drop: map[string]string{}}
	l.apply(d)
	out := [][]patch{patches(l, whole)}
	if !l.isLate() {
		return out
	}
	for _, y := range l.late.leaves {
		if is := y.in.find(y.at); is != nil && is.e == y.e { // or another service has it now
			y.in.remove(y.at)
		}
	}
	maps.Copy(l.drop, l.late.drop)
	return append(out, patches(l, whole))
}
