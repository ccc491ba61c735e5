package iptables

import (
	"testing"
	"time"
)

// TestUntilRead: rules are read as often as costs a hundredth of the time.
func TestUntilRead(t *testing.T) {
	for took, want := range map[time.Duration]int{0: 2, 19 * time.Millisecond: 2, 30 * time.Millisecond: 3, 163 * time.Millisecond: 10, time.Minute: 10} {
		if got := untilRead(took); got != want {
			t.Errorf("what took %v is done again after %d looks, want %d", took, got, want)
		}
	}
}
