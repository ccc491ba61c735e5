package status_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/status"
	"nodeagent/internal/status/statustest"
)

const patchWeb = "patch pods/status web"

// TestLife counts what a pod's life costs the API server: three requests, where kubelet
// reads before each write and writes what a pod waits for as well. That it is ready is
// written the moment it is.
func TestLife(t *testing.T) {
	live(t, func(b *bed) {
		web := bound("web", "1")
		b.api.Add(web)
		b.pods.tell(with(web, corev1.PodPending, false, 0), false)
		time.Sleep(900 * time.Millisecond) // on a node that has much to do
		b.asked("while it starts")
		ready, at := with(web, corev1.PodRunning, true, 0), time.Now()
		b.pods.tell(ready, false)
		synctest.Wait()
		if r := b.api.Requests(); len(r) != 1 || !r[0].At.Equal(at) {
			t.Errorf("the API server was asked %v when the pod was ready at %s, want one request at that time", r, at)
		}
		b.asked("when it was ready", patchWeb)
		if got := b.api.Pod("default", "web"); got.Status.Phase != corev1.PodRunning || readyOf(got) != corev1.ConditionTrue || len(got.Status.PodIPs) != 2 {
			t.Errorf("the API server has %+v", got.Status)
		}
		time.Sleep(time.Hour)
		b.asked("at rest")

		b.api.Delete("default", "web", false)
		leaving := b.api.Pod("default", "web")
		time.Sleep(time.Second)
		b.asked("while its containers end")
		ended := with(leaving, corev1.PodSucceeded, false, 0)
		b.pods.tell(ended, false)
		time.Sleep(30 * time.Millisecond)
		b.asked("when they had ended", patchWeb)
		b.pods.tell(ended, true)
		b.asked("when nothing was left of it", "delete pods web")
		if b.api.Pod("default", "web") != nil {
			t.Error("the pod is still there")
		}
		b.pods.unlist("1")
		time.Sleep(time.Hour)
		b.asked("after its end")
	})
}

// TestLastWord: what is told of a pod of which nothing is left does not wait for
// company, since the final delete waits for it.
func TestLastWord(t *testing.T) {
	live(t, func(b *bed) {
		web := bound("web", "1")
		b.api.Add(web)
		b.pods.tell(with(web, corev1.PodRunning, true, 0), false)
		synctest.Wait()
		b.api.Delete("default", "web", false)
		leaving := b.api.Pod("default", "web")
		b.pods.tell(with(leaving, corev1.PodSucceeded, false, 0), false)
		synctest.Wait()
		b.pods.tell(with(leaving, corev1.PodSucceeded, false, 1), true) // nobody waits for the count
		synctest.Wait()
		if got := b.api.Pod("default", "web"); got != nil {
			t.Errorf("nothing is left of the pod, and the API server still has it after no time: %+v", got.Status)
		}
	})
}

// TestLastNoise: what the API server lacks of a pod that is gone, and nobody asks for,
// costs no request, and the delete no wait for it; unless a finalizer keeps the pod.
func TestLastNoise(t *testing.T) {
	for _, kept := range []bool{false, true} {
		live(t, func(b *bed) {
			web := bound("web", "1")
			if kept {
				web.Finalizers = []string{"example.com/tracking"}
			}
			b.api.Add(web)
			b.pods.tell(with(web, corev1.PodRunning, true, 0), false)
			synctest.Wait()
			b.api.Delete("default", "web", false)
			ended := with(b.api.Pod("default", "web"), corev1.PodSucceeded, false, 0)
			ended.Status.PodIP, ended.Status.PodIPs = "10.244.0.7", []corev1.PodIP{{IP: "10.244.0.7"}}
			b.pods.tell(ended, false)
			synctest.Wait()
			b.api.Asked()
			gone := *ended
			gone.Status.PodIP, gone.Status.PodIPs = "", nil
			b.pods.tell(&gone, true)
			if !kept {
				b.asked("when nothing was left of the pod", "delete pods web")
				return
			}
			b.asked("when nothing was left of a pod that somebody keeps", patchWeb, "delete pods web")
			if got := b.api.Pod("default", "web"); got == nil || got.Status.PodIP != "" {
				t.Errorf("a pod that somebody keeps is shown as %+v", got)
			}
		})
	}
}

// TestPendingIsTold: what a pod waits for is told soon, if it has to wait, and sooner if
// something is wrong.
func TestPendingIsTold(t *testing.T) {
	live(t, func(b *bed) {
		web := bound("web", "1")
		b.api.Add(web)
		pending := with(web, corev1.PodPending, false, 0)
		b.pods.tell(pending, false)
		time.Sleep(1100 * time.Millisecond)
		b.asked("after 1.1 s", patchWeb)
		if got := b.api.Pod("default", "web"); got.Status.StartTime == nil || len(got.Status.ContainerStatuses) != 1 {
			t.Errorf("the API server has %+v", got.Status)
		}
		failing := *pending
		failing.Status.ContainerStatuses = slices.Clone(pending.Status.ContainerStatuses)
		failing.Status.ContainerStatuses[0].State.Waiting = &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}
		b.pods.tell(&failing, false)
		time.Sleep(300 * time.Millisecond)
		b.asked("0.3 s after a failure", patchWeb)
	})
}

// TestManyPending: while one pod after another gets ready, nobody is told of those that
// are still on their way up, unless something goes wrong or it takes too long; and what
// else talks to the API server is asked to wait.
func TestManyPending(t *testing.T) {
	live(t, func(b *bed) {
		web, failing := bound("web", "1"), bound("failing", "2")
		b.api.Add(web)
		b.api.Add(failing)
		b.pods.tell(with(web, corev1.PodPending, false, 0), false)
		began, n := time.Now(), 0
		ready := func(until time.Duration) { // one pod after another
			t.Helper()
			var want []string
			for ; time.Since(began) < until; n++ {
				other := bound(fmt.Sprint("p", n), fmt.Sprint("p", n))
				b.api.Add(other)
				b.pods.tell(with(other, corev1.PodRunning, true, 0), false)
				want = append(want, "patch pods/status "+other.Name)
				synctest.Wait()
				if got := b.yield.Load(); got == nil || !got.Equal(time.Now().Add(500*time.Millisecond)) {
					t.Errorf("at %s others are asked to wait until %v", time.Now(), got)
				}
				time.Sleep(100 * time.Millisecond)
			}
			b.asked(fmt.Sprint("until ", until), want...)
		}
		ready(4 * time.Second)
		bad := with(failing, corev1.PodPending, false, 0)
		bad.Status.ContainerStatuses[0].State.Waiting = &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}
		b.pods.tell(bad, false)
		time.Sleep(300 * time.Millisecond)
		b.asked("when a pod fails", "patch pods/status failing")
		ready(9900 * time.Millisecond)
		time.Sleep(time.Until(began.Add(10*time.Second + time.Millisecond)))
		b.asked("after 10 s", patchWeb)
	})
}

// TestNoise: a container that restarts all the time is told of now and then, and in the
// end as it is; a pod that gets unready is told of at once even then.
func TestNoise(t *testing.T) {
	live(t, func(b *bed) {
		web := bound("web", "1")
		b.api.Add(web)
		b.pods.tell(with(web, corev1.PodRunning, true, 0), false)
		synctest.Wait()
		for i := range int32(1000) {
			b.pods.tell(with(web, corev1.PodRunning, true, i), false)
			time.Sleep(100 * time.Millisecond)
		}
		b.pods.tell(with(web, corev1.PodRunning, false, 1000), false)
		synctest.Wait()
		if got := b.api.Pod("default", "web"); readyOf(got) != corev1.ConditionFalse {
			t.Error("that the pod is not ready was not told at once")
		}
		if n := len(b.api.Requests()); n < 10 || n > 20 {
			t.Errorf("%d requests for 1000 changes in 100 s, want one in 10 s after a first few", n)
		}
		b.pods.tell(with(web, corev1.PodRunning, false, 1001), false)
		time.Sleep(11 * time.Second)
		if got := b.api.Pod("default", "web"); got.Status.ContainerStatuses[0].RestartCount != 1001 {
			t.Errorf("the API server was told of restart %d in the end, want 1001", got.Status.ContainerStatuses[0].RestartCount)
		}
	})
}

// TestFlapping: readiness that flaps is limited too.
func TestFlapping(t *testing.T) {
	live(t, func(b *bed) {
		web := bound("web", "1")
		b.api.Add(web)
		for i := range 6000 {
			b.pods.tell(with(web, corev1.PodRunning, i%2 == 0, 0), false)
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		if n := len(b.api.Requests()); n > 90 {
			t.Errorf("%d requests for 6000 changes in a minute, want at most one a second after a first few", n)
		}
		if got := b.api.Pod("default", "web"); readyOf(got) != corev1.ConditionFalse {
			t.Error("the last change is not told")
		}
	})
}

// TestOnlyFromTheAPIServer: nothing is written to a pod that the API server did not
// list, nor before it was read.
func TestOnlyFromTheAPIServer(t *testing.T) {
	live(t, func(b *bed) {
		b.pods.tell(with(bound("web", "1"), corev1.PodRunning, true, 0), false)
		time.Sleep(time.Hour)
		b.asked("about a pod that it does not have")
	})
}

// TestForeign: what others write into the status stays, and what they undo of ours is
// put right.
func TestForeign(t *testing.T) {
	live(t, func(b *bed) {
		web := bound("web", "1")
		b.api.Add(web)
		b.pods.tell(with(web, corev1.PodRunning, true, 0), false)
		synctest.Wait()
		b.see(false) // the writer does not know of it
		b.api.Edit("default", "web", func(p *corev1.Pod) {
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: "example.com/gate", Status: corev1.ConditionTrue})
			p.Status.NominatedNodeName = "other"
			for i := range p.Status.Conditions {
				if p.Status.Conditions[i].Type == corev1.PodReady {
					p.Status.Conditions[i].Status = corev1.ConditionFalse
				}
			}
		})
		b.pods.tell(with(web, corev1.PodRunning, true, 1), false)
		time.Sleep(time.Second)
		got := b.api.Pod("default", "web")
		if n := len(got.Status.Conditions); n != 6 || got.Status.NominatedNodeName != "other" || got.Status.ContainerStatuses[0].RestartCount != 1 {
			t.Errorf("the API server has %d conditions, nominated node %q, restart %d; want what others wrote, and ours",
				n, got.Status.NominatedNodeName, got.Status.ContainerStatuses[0].RestartCount)
		}
		if readyOf(got) != corev1.ConditionTrue {
			t.Error("what somebody wrote before a patch of ours that did not concern it is not put right")
		}
		b.see(true)
		time.Sleep(time.Minute)
		b.api.Asked()
		b.api.Edit("default", "web", func(p *corev1.Pod) { // as the node controller does when it hears nothing
			for i := range p.Status.Conditions {
				if p.Status.Conditions[i].Type == corev1.PodReady {
					p.Status.Conditions[i].Status = corev1.ConditionFalse
				}
			}
		})
		b.asked("when somebody called the pod unready", patchWeb)
		if readyOf(b.api.Pod("default", "web")) != corev1.ConditionTrue {
			t.Error("a ready pod is shown as not ready")
		}
	})
}

// TestRestart: a new daemon writes nothing that the API server has, and nothing that says
// less, although it knows less than the one before.
func TestRestart(t *testing.T) {
	live(t, func(b *bed) {
		web := bound("web", "1")
		b.api.Add(web)
		told := with(web, corev1.PodRunning, true, 3)
		b.pods.tell(told, false)
		synctest.Wait()
		before := b.api.Pod("default", "web")
		b.api.Asked()
		b.stop()
		time.Sleep(time.Hour)
		b.pods.tell(with(web, corev1.PodRunning, true, 3), false) // later times of the same conditions, same run
		b.pods.pods["1"].pod.Status.ContainerStatuses[0].State = told.Status.ContainerStatuses[0].State
		b.start()
		time.Sleep(time.Minute)
		b.asked("by a new daemon that knows the same")

		b.pods.tell(with(web, corev1.PodPending, false, 0), false) // the runtime has lost everything
		time.Sleep(time.Minute)
		got := b.api.Pod("default", "web")
		c := got.Status.ContainerStatuses[0]
		if got.Status.Phase != corev1.PodRunning || c.RestartCount != 3 || !got.Status.StartTime.Equal(before.Status.StartTime) {
			t.Errorf("phase %s, restarts %d, started %s: want what was told before", got.Status.Phase, c.RestartCount, got.Status.StartTime)
		}
		if end := c.LastTerminationState.Terminated; c.State.Waiting == nil || end == nil || end.Reason != "ContainerStatusUnknown" || end.ExitCode != 137 {
			t.Errorf("the container that was lost is told as %+v", c)
		}
		b.pods.tell(with(web, corev1.PodSucceeded, false, 3), false)
		time.Sleep(time.Minute)
		b.pods.tell(with(web, corev1.PodRunning, true, 4), false)
		time.Sleep(time.Minute)
		if got := b.api.Pod("default", "web"); got.Status.Phase != corev1.PodSucceeded {
			t.Errorf("a pod that has ended is told as %s", got.Status.Phase)
		}
	})
}

// TestRecreated: a pod that was made anew under the same name is never written to for
// the one before.
func TestRecreated(t *testing.T) {
	live(t, func(b *bed) {
		old := bound("web", "1")
		b.api.Add(old)
		b.pods.tell(with(old, corev1.PodRunning, true, 0), false)
		synctest.Wait()
		b.see(false) // the watch is behind
		b.api.Delete("default", "web", true)
		b.api.Add(bound("web", "2"))
		fresh := b.api.Pod("default", "web")
		b.pods.tell(with(old, corev1.PodFailed, false, 0), false)
		time.Sleep(30 * time.Second)
		b.pods.tell(with(old, corev1.PodFailed, false, 0), true)
		time.Sleep(30 * time.Second)
		got := b.api.Pod("default", "web")
		if got == nil || got.ResourceVersion != fresh.ResourceVersion {
			t.Errorf("the new pod was written to: %+v", got)
		}
		b.see(true)
		b.api.Asked()
		b.pods.tell(with(fresh, corev1.PodRunning, true, 0), false)
		b.asked("about the new one", patchWeb)
	})
}

// TestLaggingWatch: what the API server answered counts until the watch has caught up.
func TestLaggingWatch(t *testing.T) {
	live(t, func(b *bed) {
		web := bound("web", "1")
		b.api.Add(web)
		before := b.api.Pod("default", "web")
		b.see(false)
		b.pods.tell(with(web, corev1.PodRunning, true, 0), false)
		b.asked("at first", patchWeb)
		b.mu.Lock()
		b.writer.Offer(snapshotOf(before))
		b.mu.Unlock()
		time.Sleep(10 * time.Second)
		b.asked("while the watch lags")
		b.see(true)
		time.Sleep(5 * time.Minute)
		b.asked("when the watch has caught up")
	})
}

// TestSetBack: an API server that was set back to an older state is told again.
func TestSetBack(t *testing.T) {
	live(t, func(b *bed) {
		web := bound("web", "1")
		b.api.Add(web)
		b.pods.tell(with(web, corev1.PodRunning, true, 0), false)
		synctest.Wait()
		b.see(false)
		b.pods.tell(with(web, corev1.PodRunning, false, 0), false)
		synctest.Wait()
		b.api.Edit("default", "web", func(p *corev1.Pod) { *p = *bound("web", "1") })
		b.mu.Lock()
		back := bound("web", "1")
		back.ResourceVersion = "7"
		b.writer.Offer(snapshotOf(back))
		b.mu.Unlock()
		time.Sleep(3 * time.Minute)
		if got := b.api.Pod("default", "web"); got.Status.Phase != corev1.PodRunning {
			t.Error("an API server that was restored is never told again")
		}
	})
}

// TestForgetfulServer: a field that the API server does not know is not offered again and
// again.
func TestForgetfulServer(t *testing.T) {
	live(t, func(b *bed) {
		b.api.Forget(func(s *corev1.PodStatus) {
			s.ObservedGeneration = 0
			for i := range s.Conditions {
				s.Conditions[i].ObservedGeneration = 0
			}
		})
		web := bound("web", "1")
		b.api.Add(web)
		b.pods.tell(with(web, corev1.PodRunning, true, 0), false)
		time.Sleep(time.Hour)
		b.asked("in an hour", patchWeb, patchWeb)
		b.pods.tell(with(web, corev1.PodRunning, true, 1), false)
		time.Sleep(time.Hour)
		b.asked("in an hour after a change", patchWeb)
	})
}

// TestRefusedStatus: a status that the API server never takes is tried seldom, told of,
// and keeps no pod from its end.
func TestRefusedStatus(t *testing.T) {
	live(t, func(b *bed) {
		b.api.Faults(func(r statustest.Request) (f statustest.Fault) {
			if r.Resource == "pods/status" {
				f.Status = 422
			}
			return f
		})
		web := bound("web", "1")
		b.api.Add(web)
		b.pods.tell(with(web, corev1.PodRunning, true, 0), false)
		time.Sleep(time.Hour)
		if n := len(b.api.Asked()); n < 2 || n > 20 {
			t.Errorf("it was tried %d times in an hour, want now and then", n)
		}
		b.api.Delete("default", "web", false)
		b.pods.tell(with(b.api.Pod("default", "web"), corev1.PodSucceeded, false, 0), true)
		time.Sleep(3 * time.Minute)
		if b.api.Pod("default", "web") != nil {
			t.Errorf("the pod is not deleted: %s", strings.Join(b.api.Asked(), ", "))
		}
	})
}

// TestGone: the final delete waits for the word that nothing is left, is told to have
// ended first, comes as often as it must, and from a later daemon where it must.
func TestGone(t *testing.T) {
	live(t, func(b *bed) {
		for i := range 40 {
			p := bound(fmt.Sprint("p", i), fmt.Sprint(i))
			b.api.Add(p)
			b.pods.tell(with(p, corev1.PodRunning, true, 0), false)
		}
		time.Sleep(time.Second)
		var flying, most int
		b.api.Faults(func(r statustest.Request) statustest.Fault {
			if r.Verb == "delete" && time.Since(r.At) == 0 {
				flying = 0
				for _, other := range b.api.RequestsLocked() {
					if r.At.Sub(other.At) < time.Second {
						flying++
					}
				}
				most = max(most, flying)
			}
			return statustest.Fault{Status: 500, Delay: time.Second}
		})
		pods, _ := b.api.Pods()
		for _, p := range pods {
			b.api.Delete(p.Namespace, p.Name, false)
			b.pods.tell(with(b.api.Pod(p.Namespace, p.Name), corev1.PodRunning, true, 0), true) // never seen to end
		}
		time.Sleep(3 * time.Hour)
		b.stop()
		b.start()
		time.Sleep(time.Hour)
		synctest.Wait()
		if pods, _ := b.api.Pods(); len(pods) != 40 || most > 16 {
			t.Errorf("%d pods, %d requests at once; want all 40, and at most 16", len(pods), most)
		}
		var last []corev1.PodPhase
		b.api.Faults(func(r statustest.Request) statustest.Fault {
			if r.Verb == "delete" {
				if p := b.api.PodLocked(r.Namespace, r.Name); p != nil {
					last = append(last, p.Status.Phase)
				}
			}
			return statustest.Fault{}
		})
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if pods, _ := b.api.Pods(); len(pods) != 0 {
			t.Errorf("%d pods are left", len(pods))
		}
		for _, phase := range last {
			if phase != corev1.PodFailed {
				t.Errorf("a pod was %s when it was deleted, want Failed: nobody saw it end", phase)
			}
		}
	})
}

// TestNotGone: a pod that is not being deleted is never deleted.
func TestNotGone(t *testing.T) {
	live(t, func(b *bed) {
		web := bound("web", "1")
		b.api.Add(web)
		b.pods.tell(with(web, corev1.PodFailed, false, 0), true)
		time.Sleep(time.Hour)
		if b.api.Pod("default", "web") == nil {
			t.Error("a pod that nobody deleted was deleted")
		}
	})
}

func snapshotOf(pods ...*corev1.Pod) status.Snapshot {
	return status.Snapshot{Pods: pods, Synced: true}
}

// TestProgress: to rest, and to wait for the API server, is progress; a loop that
// does not come back from what it asks makes none.
func TestProgress(t *testing.T) {
	live(t, func(b *bed) {
		want := func(what string, silent time.Duration) {
			t.Helper()
			synctest.Wait()
			if got := time.Since(b.writer.Progress()); got != silent {
				t.Errorf("%s: silent for %v, want %v", what, got, silent)
			}
		}
		web := bound("web", "1")
		b.api.Add(web)
		b.pods.tell(with(web, corev1.PodRunning, true, 0), false)
		time.Sleep(time.Hour)
		want("at rest", 0)
		b.stuck.Store(int64(time.Hour))
		b.pods.tell(with(web, corev1.PodRunning, false, 1), false)
		time.Sleep(2 * time.Minute)
		want("in a question that hangs", 2*time.Minute)
		b.stuck.Store(0)
		time.Sleep(2 * time.Hour)
		want("behind it", 0)
	})
}
