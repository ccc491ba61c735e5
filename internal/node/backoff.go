package node

import (
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Times between two tries of what failed: kubelet's first, and a bound low
// enough that a node whose API server is back is back within seconds.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 10 * time.Second
)

// backoff is how long to leave the API server alone. The zero value is: not at
// all.
type backoff struct {
	failures int
	until    time.Time
}

// failed is the back-off after one more failure at now. dice is from [0,1): it
// spreads the nodes of a cluster whose API server is away, by half of the time
// and by a quarter of what the server asked for.
func (b backoff) failed(err error, now time.Time, dice float64) backoff {
	d := lastRetry
	if b.failures < 7 { // 100 ms × 2^7 is more than the bound
		d = firstRetry << b.failures
	}
	d = d/2 + time.Duration(dice*float64(d/2))
	if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
		asked := time.Duration(seconds) * time.Second
		d = max(d, asked+time.Duration(dice*float64(asked/4)))
	}
	return backoff{failures: b.failures + 1, until: now.Add(min(d, maxAsked))}
}

// maxAsked bounds what a server can ask for: it must not be able to take a node
// out of the cluster by one answer.
const maxAsked = 2 * time.Minute
