package status

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"nodeagent/internal/pod"
)

// outage holds back all requests while the API server takes none, so that it is
// asked by one of them now and then, and not by all at once when it comes back.
type outage struct {
	fails int
	until time.Time
	good  time.Time // the last answer
}

const (
	leastOutage = 100 * time.Millisecond
	mostOutage  = 30 * time.Second
)

// room tells how many requests may be under way at once, and from when on.
func (o *outage) room(most int) (int, time.Time) {
	if o.fails == 0 {
		return most, time.Time{}
	}
	return 1, o.until
}

// note takes the end of a request into account that began then.
func (o *outage) note(err error, begun, now time.Time) {
	switch {
	case !refuses(err):
		o.fails, o.good = 0, now
	case o.good.After(begun) && !busy(err):
		// others got an answer meanwhile: it is this request's trouble
	default:
		o.until = now.Add(max(backoff(o.fails, leastOutage, mostOutage), asked(err)))
		o.fails++
	}
}

// refuses tells whether the API server answered nothing, or that it answers nobody.
func refuses(err error) bool {
	if err == nil {
		return false
	}
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) {
		return true
	}
	return busy(err) || apierrors.IsUnauthorized(err) || apierrors.IsServiceUnavailable(err)
}

// busy tells whether the API server asks to be asked less.
func busy(err error) bool { return apierrors.IsTooManyRequests(err) || asked(err) > 0 }

// mostAsked bounds what the API server can ask for: one answer must not silence a
// node for good.
const mostAsked = 2 * time.Minute

// asked is how long the API server asks to be left alone (Retry-After).
func asked(err error) time.Duration {
	seconds, _ := apierrors.SuggestsClientDelay(err)
	return min(pod.Seconds(int64(seconds)), mostAsked)
}

// refused tells whether the same request will never be taken.
func refused(err error) bool {
	var answer apierrors.APIStatus
	return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err) ||
		errors.As(err, &answer) && answer.Status().Code == http.StatusUnprocessableEntity
}

// backoff is how long to wait after so many failures before this one: doubled each
// time, and up to a quarter more by chance.
func backoff(fails int, least, most time.Duration) time.Duration {
	wait := most
	if fails < 16 {
		wait = min(most, least<<fails)
	}
	return wait + rand.N(wait/4)
}
