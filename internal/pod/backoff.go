package pod

import "time"

// Back-off of container restarts and of failed operations, as kubelet has them.
const (
	restartBackoffFirst = 10 * time.Second
	restartBackoffMax   = 300 * time.Second
	restartBackoffReset = 600 * time.Second

	imageBackoffFirst = 10 * time.Second
	imageBackoffMax   = 300 * time.Second

	retryFirst = 500 * time.Millisecond
	retryMax   = 10 * time.Second
)

// restart tells when the run after last may begin, and which back-off that run
// carries for its own successor. kubelet: the first restart is immediate, the
// next ones wait 10 s doubling to 300 s after the container's end, and a run of
// 600 s or more starts the series anew. The series lives on the containers'
// records, so that it outlives the daemon.
func restart(last *Container, now time.Time) (at time.Time, next time.Duration) {
	wait := last.Backoff
	if !last.Started.IsZero() && last.Finished.Sub(last.Started) >= restartBackoffReset {
		wait = 0
	}
	at = last.Finished.Add(wait)
	if limit := now.Add(wait); at.After(limit) {
		at = limit // the clock was set back: never wait longer than the step
	}
	return at, double(wait, restartBackoffFirst, restartBackoffMax)
}

// RetryAt tells when a failed operation may run again.
func (f Failure) RetryAt() time.Time {
	first, most := retryFirst, retryMax
	if f.image() {
		first, most = imageBackoffFirst, imageBackoffMax
	}
	wait := first
	for range f.Count - 1 {
		wait = double(wait, first, most)
	}
	return f.At.Add(wait)
}

func (f Failure) image() bool {
	switch f.Reason {
	case ReasonErrImagePull, ReasonImageInspectError, ReasonInvalidImageName, ReasonErrImageNeverPull, ReasonRegistryUnavailable:
		return true
	}
	return false
}

func double(d, first, most time.Duration) time.Duration {
	if d == 0 {
		return first
	}
	return min(2*d, most)
}
