package pod

import (
	"testing"
	"time"
)

// TestPullBackoff: a pull that fails waits 10 s, doubling to 300 s, and is shown
// as backed off, with what it failed for, in kubelet's words.
func TestPullBackoff(t *testing.T) {
	for _, reason := range []string{ReasonErrImagePull, ReasonRegistryUnavailable, ReasonSignatureValidationFailed} {
		for count, want := range map[int]time.Duration{1: 10 * time.Second, 2: 20 * time.Second, 5: 160 * time.Second, 6: 300 * time.Second, 100: 300 * time.Second} {
			f := Failure{Reason: reason, Message: "no route", Count: count, At: t0}
			if got := f.RetryAt().Sub(t0); got != want {
				t.Errorf("%s for the %d. time waits %s, want %s", reason, count, got, want)
			}
			shown := f.waiting("a/b:v1")
			if count == 1 && (shown.Reason != reason || shown.Message != "no route") ||
				count > 1 && (shown.Reason != ReasonImagePullBackOff || shown.Message != `Back-off pulling image "a/b:v1": `+reason+": no route") {
				t.Errorf("%s for the %d. time is shown as %+v", reason, count, shown)
			}
			if !f.LacksImage() {
				t.Errorf("%s is no want of an image", reason)
			}
		}
	}
	// What failed for want of a runtime is tried again at once when that is back.
	for _, reason := range []string{ReasonImageInspectError, ReasonRunContainerError, ReasonFailedCreatePodSandBox} {
		f := Failure{Reason: reason, Message: "connection refused", Count: 100, At: t0, Away: true}
		if got := f.RetryAt().Sub(t0); got > time.Second {
			t.Errorf("%s without a runtime waits %s", reason, got)
		}
	}
	// What no registry was asked for is no pull that backs off.
	for _, reason := range []string{ReasonInvalidImageName, ReasonErrImageNeverPull, ReasonImageInspectError} {
		f := Failure{Reason: reason, Message: "why", Count: 3, At: t0}
		if shown := f.waiting("a/b:v1"); shown.Reason != reason || shown.Message != "why" {
			t.Errorf("%s is shown as %+v", reason, shown)
		}
	}
}
