package pod

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestEnding: a pod that the node ends is stopped within the shorter of two grace
// periods, fails when it has stopped, and stays so.
func TestEnding(t *testing.T) {
	end := func(grace int64) *Ending { return &Ending{Reason: "Terminated", Message: "why", Grace: grace} }
	for _, c := range []struct {
		name         string
		pod          *corev1.Pod
		o            Observed
		end          *Ending
		plan, status string
	}{
		{"it runs", testPod(always, "", "a"), observed(ready, "a#0@s0 running"), end(20), "StopContainer a0 20s", "Running, ready: a#0 running"},
		{"its own grace is shorter", testPod(always, "", "a"), observed(ready, "a#0@s0 running"), end(40), "StopContainer a0 30s", "Running, ready: a#0 running"},
		{"there is no time left", testPod(always, "", "a"), observed(ready, "a#0@s0 running"), end(0), "StopContainer a0 2s", "Running, ready: a#0 running"},
		{"it was stopped", testPod(always, "", "a"), observed(ready, "a#0@s0 exited0"), end(20), "StopSandbox s0",
			"Failed, not ready: a#0 ended 0 Completed [Terminated]"},
		{"it ended well", testPod(never, "", "a"), observed(ready, "a#0@s0 exited0"), end(20), "StopSandbox s0",
			"Succeeded, not ready: a#0 ended 0 Completed [Terminated]"},
		{"all of it is given back", testPod(always, "", "a"), observed(stopped, "a#0@s0 exited143"), end(20), "ReleaseCgroup",
			"Failed, not ready: a#0 ended 143 Error [Terminated]"},
		{"it has not begun", testPod(always, "", "a"), observed(nil), end(20), "ReleaseCgroup",
			"Failed, not ready: a#0 ended 137 ContainerStatusUnknown [Terminated]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := Desired{Wish: WishRun, Pod: c.pod, Ended: c.end}
			if got := show(Plan(d, c.o, t0)); got != c.plan {
				t.Errorf("plan:\n got %s\nwant %s", got, c.plan)
			}
			s := Status(d, c.o, Node{}, corev1.PodStatus{}, t0)
			if got := brief(s); got != c.status {
				t.Errorf("status:\n got %s\nwant %s", got, c.status)
			}
			told := false
			for _, cond := range s.Conditions {
				told = told || cond.Type == corev1.DisruptionTarget && cond.Status == corev1.ConditionTrue && cond.Reason == "TerminationByKubelet"
			}
			if told != Over(s.Phase) {
				t.Errorf("it is told who disrupted it: %t, in the phase %s", told, s.Phase)
			}
			// The shutdown is called off: what has ended stays so.
			if after := Status(Desired{Wish: WishRun, Pod: c.pod}, c.o, Node{}, s, t0); after.Phase != s.Phase || after.Reason != s.Reason {
				t.Errorf("afterwards it is %s", brief(after))
			}
		})
	}
}
