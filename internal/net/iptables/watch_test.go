package iptables

import (
	"testing"
	"time"
)

// TestUntilRead: rules are read as often as costs a hundredth of the time.
func TestUntilRead(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{0: 2 * time.Second, 19 * time.Millisecond: 2 * time.Second, 30 * time.Millisecond: 3 * time.Second, 163 * time.Millisecond: 10 * time.Second, time.Minute: 10 * time.Second} {
		if got := time.Duration(untilRead(took)) * countEvery; got != want {
			t.Errorf("what took %v is done again after %v, want %v", took, got, want)
		}
	}
}
