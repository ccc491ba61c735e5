//go:build race

package spec

// The race detector makes everything ten times slower, and there is but one
// goroutine here.
const part = 10
