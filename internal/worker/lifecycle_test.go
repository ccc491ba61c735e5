package worker_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/worker"
	"nodeagent/internal/worker/workertest"
)

// live runs one pod in a world without faults.
func live(t *testing.T, do func(s *scene)) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, workertest.New(1, workertest.Faults{}, behaviour))
		s.start()
		do(s)
		s.want()
		time.Sleep(settling)
		s.checkGone()
		s.stop()
		if t.Failed() {
			t.Logf("%s", strings.Join(s.w.Log(), "\n"))
		}
	})
}

func (s *scene) status(name string) corev1.PodStatus {
	for _, p := range s.set.Pods() {
		if p.Name == name {
			return p.Status
		}
	}
	return corev1.PodStatus{}
}

// order demands that the world's log has lines that contain these, in this order.
func (s *scene) order(lines ...string) {
	s.t.Helper()
	at := 0
	for _, l := range s.w.Log() {
		if at < len(lines) && strings.Contains(l, lines[at]) {
			at++
		}
	}
	if at < len(lines) {
		s.t.Errorf("%q did not come in its turn (after %q)", lines[at], lines[:at])
	}
}

// TestMesh: sidecars and hooks in their order, up and down.
func TestMesh(t *testing.T) {
	live(t, func(s *scene) {
		s.want("mesh")
		time.Sleep(time.Minute)
		s.check()
		s.order(" log attempt 0 in", " init attempt 0 in", " proxy attempt 0 in", " proxy is through", " app attempt 0 in", " app is through", " side attempt 0 in")
		s.want()
		time.Sleep(time.Minute)
		s.order(" app 143", " proxy 143", " log 143")
	})
}

// TestBatch: a pod succeeds although its sidecar would run for ever.
func TestBatch(t *testing.T) {
	live(t, func(s *scene) {
		s.want("batch")
		time.Sleep(time.Minute)
		if st := s.status("batch"); st.Phase != corev1.PodSucceeded {
			t.Errorf("%+v", st)
		}
	})
}

// TestReset: an exit code starts all containers anew, with a back-off from the second
// time on.
func TestReset(t *testing.T) {
	live(t, func(s *scene) {
		s.want("reset")
		time.Sleep(2 * time.Minute)
		s.check()
		for name, runs := range map[string]int{"init": 3, "again": 3, "app": 3} {
			if got := s.w.Started("reset", name); got != runs {
				t.Errorf("%s ran %d times, want %d", name, got, runs)
			}
		}
	})
}

// TestDeadline: it counts over a restart of the daemon, and nothing runs after it.
func TestDeadline(t *testing.T) {
	live(t, func(s *scene) {
		s.want("limited")
		time.Sleep(30 * time.Second)
		s.kill()
		s.w.LoseNetwork("limited") // the oldest sandbox's record goes
		s.start()
		time.Sleep(29 * time.Second)
		if st := s.status("limited"); st.Phase != corev1.PodRunning {
			t.Errorf("before: %+v", st)
		}
		time.Sleep(20 * time.Second)
		if st := s.status("limited"); st.Phase != corev1.PodFailed || st.Reason != "DeadlineExceeded" {
			t.Errorf("after: %+v", st)
		}
		runs := s.w.Started("limited", "deaf")
		s.kill()
		s.start()
		time.Sleep(time.Minute)
		if got := s.w.Started("limited", "deaf"); got != runs {
			t.Errorf("the next daemon ran it again: %d times, was %d", got, runs)
		}
	})
}

// TestRestart: a restart that was asked for happens once, whatever the policy, also when
// the daemon dies in it.
func TestRestart(t *testing.T) {
	live(t, func(s *scene) {
		s.want("batch", "web")
		time.Sleep(time.Second)
		for name, want := range map[string]error{"batch": nil, "nobody": worker.ErrUnknown} {
			if err := s.set.Restart("default", name, ""); (err == nil) != (want == nil) {
				t.Errorf("%s: %v, want %v", name, err, want)
			}
		}
		time.Sleep(50 * time.Millisecond) // noted, perhaps signalled
		s.kill()
		s.start()
		time.Sleep(time.Minute)
		if st := s.status("batch"); st.Phase != corev1.PodSucceeded || s.w.Started("batch", "work") != 2 {
			t.Errorf("ran %d times: %+v", s.w.Started("batch", "work"), st)
		}
		if err := s.set.Restart("default", "batch", ""); err == nil {
			t.Error("a pod that has ended was restarted")
		}
		if err := s.set.Restart("default", "web", "side"); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if app, side := s.w.Started("web", "app"), s.w.Started("web", "side"); app != 1 || side != 2 {
			t.Errorf("app ran %d times, side %d", app, side)
		}
		s.w.Calm()
	})
}

// TestEphemeralContainer: the engine runs one that validation lets no static pod have.
func TestEphemeralContainer(t *testing.T) {
	live(t, func(s *scene) {
		s.want("debugged")
		time.Sleep(time.Minute)
		st := s.status("debugged")
		if len(st.EphemeralContainerStatuses) != 1 || st.EphemeralContainerStatuses[0].State.Terminated == nil {
			t.Errorf("%+v", st.EphemeralContainerStatuses)
		}
		if n := s.w.Started(types.UID("debugged"), "once"); n != 1 {
			t.Errorf("it ran %d times", n)
		}
		if target := s.w.Target("debugged", "once"); target == "" {
			t.Error("it did not join the container that it names")
		}
	})
}
