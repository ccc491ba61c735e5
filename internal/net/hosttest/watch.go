package hosttest

import (
	"context"
	"testing"
)

// Watcher tells of what others change.
type Watcher interface {
	Watch(ctx context.Context, wake func()) error
}

// Watch has a backend watch until the test ends, and returns where it wakes: first when
// it begins to listen.
func Watch(t testing.TB, b Watcher) chan struct{} {
	wakes := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		ended <- b.Watch(ctx, func() {
			select {
			case wakes <- struct{}{}:
			default:
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		must(t, <-ended)
	})
	return wakes
}
