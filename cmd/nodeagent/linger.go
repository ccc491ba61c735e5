package main

import (
	"context"
	"time"
)

// linger waits, and tells whether ctx lives on.
func linger(ctx context.Context, wait time.Duration) bool {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
