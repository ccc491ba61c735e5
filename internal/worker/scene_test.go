package worker_test

import (
	"context"

	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/probe"
)

// stray removes what belongs to no pod, as the rooms of the daemon do.
func (s *scene) stray(probes *probe.Set) func(context.Context, func(types.UID) bool) error {
	d := s.d
	return func(ctx context.Context, keep func(types.UID) bool) error {
		probes.Stray(d.Runs)
		return d.Stray(ctx, keep)
	}
}

// runBoth runs two parts of a daemon until both have ended; one that fails ends
// the other.
func runBoth(ctx context.Context, parts ...func(context.Context) error) (errs []error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error)
	for _, run := range parts {
		go func() { ended <- run(ctx) }()
	}
	for range parts {
		err := <-ended
		if err != nil {
			cancel()
		}
		errs = append(errs, err)
	}
	return errs
}
