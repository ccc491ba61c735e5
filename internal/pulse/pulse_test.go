package pulse_test

import (
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/internal/pulse"
)

// TestProgress: rest and a call that has time are progress, silence is none.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pulse.Pulse
		want := func(what string, silent time.Duration) {
			t.Helper()
			if got := time.Since(p.Progress()); got != silent {
				t.Errorf("%s: silent for %v, want %v", what, got, silent)
			}
		}
		want("before it begins", 0)
		p.Beat()
		time.Sleep(time.Minute)
		want("at work", time.Minute)
		p.Within(2 * time.Minute)
		time.Sleep(2 * time.Minute)
		want("in a call", 0)
		time.Sleep(time.Minute)
		want("in a call that does not end", time.Minute)
		p.Beat()
		want("behind it", 0)
		p.Rest()
		time.Sleep(24 * time.Hour)
		want("at rest", 0)
	})
}
