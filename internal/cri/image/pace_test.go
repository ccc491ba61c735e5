package image

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
)

// TestPace: pulls begin as fast as configured, after a burst, and who gives up while
// waiting for a turn goes at once.
func TestPace(t *testing.T) {
	for _, c := range []struct {
		qps   float64
		burst int
		want  time.Duration // until the 20th has begun
	}{
		{0, 0, 0},
		{5, 10, 2 * time.Second},
		{1, 0, 19 * time.Second},
		{100, 100, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, err := New(Config{Client: &containerd.Client{}, PullQPS: c.qps, PullBurst: c.burst, Parallel: 20})
			if err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			for range 20 {
				if _, err := s.slot(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(begun).Round(time.Millisecond); took != c.want {
				t.Errorf("%v a second after %d: 20 pulls began in %v, want %v", c.qps, c.burst, took, c.want)
			}
			if c.want == 0 {
				return
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			why := errors.New("why")
			time.AfterFunc(time.Millisecond, func() { cancel(why) })
			begun = time.Now()
			if _, err := s.slot(ctx); !errors.Is(err, why) || time.Since(begun) > time.Millisecond {
				t.Errorf("after %v: %v", time.Since(begun), err)
			}
		})
	}
}
