package object

import (
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"nodeagent/internal/pod"
)

// The first wait is short, since what fails first is the authorizer, which learns
// of a new pod a moment after we do.
const (
	firstWait = 100 * time.Millisecond
	lastWait  = 30 * time.Second
	mostAsked = 2 * time.Minute // by the API server: one answer must not silence it for good
)

// backoff is how long to wait after failures in a row.
type backoff struct{ wait time.Duration }

// next is the next wait, half of it left to chance, and no less than the API
// server asked for.
func (b *backoff) next(err error) time.Duration {
	b.wait = min(max(2*b.wait, firstWait), lastWait)
	wait := b.wait/2 + rand.N(b.wait)
	if s, ok := apierrors.SuggestsClientDelay(err); ok {
		wait = max(wait, min(pod.Seconds(int64(s)), mostAsked)+rand.N(time.Second))
	}
	return wait
}

func (b *backoff) reset() { b.wait = 0 }
