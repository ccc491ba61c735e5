package pod

import (
	"math"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestSeconds: numbers that no time.Duration can hold are long times and no short ones.
func TestSeconds(t *testing.T) {
	for n, want := range map[int64]time.Duration{
		0: 0, 30: 30 * time.Second, -1: -time.Second, math.MaxInt32: math.MaxInt32 * time.Second,
		10_000_000_000: longest, 18_446_744_074: longest, math.MaxInt64: longest, math.MinInt64: -longest,
	} {
		if got := Seconds(n); got != want {
			t.Errorf("%d seconds are %s, want %s", n, got, want)
		}
	}
}

// TestEndlessGrace: a pod that asks for all the time in the world gets much.
func TestEndlessGrace(t *testing.T) {
	for _, n := range []int64{10_000_000_000, 18_446_744_074, math.MaxInt64} {
		for name, p := range map[string]planner{
			"of the pod's end":  {d: Desired{Grace: &n}, o: Observed{}},
			"of the pod":        {d: Desired{Pod: &corev1.Pod{Spec: corev1.PodSpec{TerminationGracePeriodSeconds: &n}}}, o: Observed{}},
			"of its sandbox":    {o: Observed{RuntimeState: RuntimeState{Sandboxes: []Sandbox{{Grace: n}}}}},
			"of the node's end": {d: Desired{Grace: &n, Ended: &Ending{Grace: n}}},
		} {
			if got := p.grace(); got < 24*time.Hour {
				t.Errorf("a grace period of %d s %s is %s", n, name, got)
			}
		}
		if got := (&planner{}).probeGrace(Health{Grace: &n}); got < 24*time.Hour {
			t.Errorf("a grace period of %d s of a probe is %s", n, got)
		}
	}
}
