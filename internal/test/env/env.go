// Package env owns how a test is told by the environment how much to do, and
// which row of random numbers to repeat. It only reads the environment. Safe for
// concurrent use.
package env

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// Number is the value of the variable, or another where it is not set. A value
// that is no number ends the test.
func Number(t testing.TB, name string, or uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return or
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// Seed is the value of the variable, or a new one; the log tells how to have it
// again.
func Seed(t testing.TB, name string) uint64 {
	t.Helper()
	seed := Number(t, name, rand.Uint64()>>1)
	t.Logf("%s=%d", name, seed)
	return seed
}
