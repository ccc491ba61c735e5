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
	retryAway  = time.Second // while the container runtime is away: it costs a connection that is refused
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

// restart is the same with what is known besides: a run that the node interrupted
// was no crash, so it costs no wait, and counts for nothing in the series. Else a
// node that loses its power twice would bring nothing back for 10 s, and at the
// sixth time for five minutes.
func (o *Observed) restart(last *Container, now time.Time) (at time.Time, next time.Duration) {
	if o.interrupted(last) {
		return now, last.Backoff
	}
	return restart(last, now)
}

// interrupted tells a run that ended together with its sandbox, nobody knows how:
// a reboot, or data that the runtime has lost. A run whose sandbox is still good
// was not: who kills his own shim again and again shall wait.
func (o *Observed) interrupted(c *Container) bool {
	if c.Reason != ReasonContainerStatusUnknown {
		return false
	}
	s := o.newestSandbox()
	return s == nil || s.ID != c.SandboxID || s.State != SandboxReady
}

// RetryAt tells when a failed operation may run again.
func (f Failure) RetryAt() time.Time {
	first, most := retryFirst, retryMax
	switch {
	case f.Away:
		most = retryAway
	case f.image():
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
	case ReasonImageInspectError, ReasonInvalidImageName, ReasonErrImageNeverPull:
		return true
	}
	return f.pull()
}

// pull tells that the failure is that of a pull, which is held back the longer
// the more often it comes.
func (f Failure) pull() bool {
	switch f.Reason {
	case ReasonErrImagePull, ReasonRegistryUnavailable, ReasonSignatureValidationFailed:
		return true
	}
	return false
}

// LacksImage tells that the failure is for want of an image, so that one that
// comes, or a secret to pull it with, may mend it at once.
func (f Failure) LacksImage() bool { return f.image() }

func double(d, first, most time.Duration) time.Duration {
	if d == 0 {
		return first
	}
	return min(2*d, most)
}
