package ipvs

import (
	"testing"
	"time"
)

// TestUntilRead: elements are read as often as costs a hundredth of the time.
func TestUntilRead(t *testing.T) {
	for took, want := range map[time.Duration]int{0: 1, 19 * time.Millisecond: 1, 60 * time.Millisecond: 3, time.Second: 5, time.Minute: 5} {
		if got := untilRead(took); got != want {
			t.Errorf("what took %v is done again after %d looks, want %d", took, got, want)
		}
	}
}
