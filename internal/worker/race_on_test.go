//go:build race

package worker

// The race detector makes everything ten times slower; it gets a part of what is
// long, since make test runs this package without it, too.
const part = 50
