package main

import (
	"io"
	"os"

	"golang.org/x/term"

	"nodeagent/internal/diag"
)

// terminal tells whether w is a terminal, which must be kept from what pods
// write.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// shield returns a writer for the raw output of a pod: escaped where it would
// reach a terminal. flush ends it.
func shield(w io.Writer, raw bool) (shielded io.Writer, flush func() error) {
	if raw || !terminal(w) {
		return w, func() error { return nil }
	}
	e := diag.NewEscaper(w)
	return e, e.Flush
}
