package measure

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Row is one line of a table: a value that is not to be over its limit.
type Row struct {
	Work  string
	Ours  string
	Peer  string // "" where the limit is absolute
	Value float64
	Limit float64
	Unit  string // of value and limit
	Note  string
}

// Over tells whether the limit is missed.
func (r Row) Over() bool { return r.Value > r.Limit }

func (r Row) verdict() string {
	if r.Over() {
		return "OVER"
	}
	return "ok"
}

// Table prints rows beside those of a peer and tells whether one is over its limit.
func Table(out io.Writer, peer string, rows []Row) (over bool) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "WORK\tOURS\t%s\tRESULT\tLIMIT\t\tNOTE\n", peer)
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%.3g %s\t%.3g %s\t%s\t%s\n", r.Work, r.Ours, r.Peer, r.Value, r.Unit, r.Limit, r.Unit, r.verdict(), r.Note)
		over = over || r.Over()
	}
	w.Flush()
	return over
}
