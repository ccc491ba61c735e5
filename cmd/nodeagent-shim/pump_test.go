package main

import "testing"

// One deadline is for all pumps of a container: what has come by then counts, and a pump
// that hangs is not waited for, however many came before it.
func TestDeadlineOfPumps(t *testing.T) {
	over := make(chan struct{})
	close(over)
	ended := &pump{drains: make(chan chan struct{}, 1), done: over}
	hangs := &pump{drains: make(chan chan struct{}, 1), done: make(chan struct{})}
	for range 100 {
		if !ended.flushed(over) || !ended.close(over) {
			t.Fatal("a pump that has ended is said to hang")
		}
	}
	if hangs.flushed(over) || hangs.close(over) {
		t.Error("a pump that hangs is said to have ended")
	}
}
