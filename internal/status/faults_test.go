package status_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/status/statustest"
)

// loseFirst loses the answer to the first request with this verb.
func loseFirst(verb string) func(statustest.Request) statustest.Fault {
	lost := false
	return func(r statustest.Request) (f statustest.Fault) {
		f.Lose = r.Verb == verb && !lost
		lost = lost || f.Lose
		return f
	}
}

// TestFaults: whatever goes wrong for a minute, in the end everything is written, and
// nothing twice as often as it had to be.
func TestFaults(t *testing.T) {
	for name, fault := range map[string]statustest.Fault{
		"refused": {Refuse: true}, "answers lost": {Lose: true}, "black hole": {Delay: time.Hour}, "slow": {Delay: 9 * time.Second},
		"400": {Status: 400}, "401": {Status: 401}, "403": {Status: 403}, "404": {Status: 404}, "409": {Status: 409},
		"422": {Status: 422}, "429": {Status: 429, RetryAfter: 5}, "500": {Status: 500}, "503": {Status: 503}, "504": {Status: 504},
	} {
		t.Run(name, func(t *testing.T) {
			live(t, func(b *bed) {
				web, leaving, dns := bound("web", "1"), bound("leaving", "2"), fromFile("dns", "hash-1")
				b.api.Add(web)
				b.api.Add(leaving)
				b.static(true, dns)
				b.api.Faults(func(statustest.Request) statustest.Fault { return fault })
				b.api.Delete("default", "leaving", false)
				b.pods.tell(with(web, corev1.PodRunning, true, 0), false)
				b.pods.tell(with(dns, corev1.PodRunning, true, 0), false)
				b.pods.tell(with(b.api.Pod("default", "leaving"), corev1.PodSucceeded, false, 0), true)
				time.Sleep(time.Minute)
				if n := len(b.api.Asked()); n > 100 {
					t.Errorf("%d requests in a minute about three pods", n)
				}
				if untold := b.writer.Untold(); len(untold) == 0 && name != "slow" && name != "answers lost" {
					t.Error("nobody can see that something is not told")
				}
				b.api.Faults(func(statustest.Request) statustest.Fault { return statustest.Fault{} })
				time.Sleep(6 * time.Minute) // what is refused as it is is tried again after 5
				m := b.api.Pod("default", "dns")
				if p := b.api.Pod("default", "web"); readyOf(p) != corev1.ConditionTrue || m == nil || readyOf(m) != corev1.ConditionTrue {
					t.Errorf("in the end the API server has %+v and %+v", p.Status, m)
				}
				if b.api.Pod("default", "leaving") != nil {
					t.Error("in the end a pod of which nothing is left is there")
				}
				if untold := b.writer.Untold(); len(untold) > 0 {
					t.Errorf("when all is told it is shown that %+v", untold)
				}
				time.Sleep(time.Hour)
				b.api.Asked()
				time.Sleep(time.Hour)
				b.asked("at rest")
			})
		})
	}
}

// TestThreeDaysAlone: without an API server one request in half a minute asks whether
// it is back, for all pods together; when it is, all is told within a minute.
func TestThreeDaysAlone(t *testing.T) {
	live(t, func(b *bed) {
		for i := range 100 {
			b.api.Add(bound(fmt.Sprint("p", i), fmt.Sprint(i)))
		}
		b.api.Faults(func(statustest.Request) statustest.Fault { return statustest.Fault{Refuse: true} })
		pods, _ := b.api.Pods()
		for hour := range int32(72) {
			for _, p := range pods {
				b.pods.tell(with(p, corev1.PodRunning, true, hour), false)
			}
			time.Sleep(time.Hour)
		}
		if n := len(b.api.Asked()); n > 72*3600/30+200 {
			t.Errorf("%d requests in 72 h, want one in half a minute", n)
		}
		b.api.Faults(func(statustest.Request) statustest.Fault { return statustest.Fault{} })
		time.Sleep(time.Minute + 20*time.Second)
		pods, _ = b.api.Pods()
		for _, p := range pods {
			if readyOf(p) != corev1.ConditionTrue || p.Status.ContainerStatuses[0].RestartCount != 71 {
				t.Errorf("pod %s is told as %+v", p.Name, p.Status)
			}
		}
		if n := len(b.api.Asked()); n > 101 {
			t.Errorf("%d requests for 100 pods when it was back", n)
		}
	})
}

// TestRetryAfter: an API server that asks for time gets it, from all pods.
func TestRetryAfter(t *testing.T) {
	live(t, func(b *bed) {
		for i := range 10 {
			b.api.Add(bound(fmt.Sprint("p", i), fmt.Sprint(i)))
		}
		first := true
		b.api.Faults(func(statustest.Request) (f statustest.Fault) {
			if first {
				f.Status, f.RetryAfter = 429, 17
			}
			first = false
			return f
		})
		pods, _ := b.api.Pods()
		b.pods.tell(with(pods[0], corev1.PodRunning, true, 0), false)
		synctest.Wait()
		b.api.Asked()
		for _, p := range pods {
			b.pods.tell(with(p, corev1.PodRunning, true, 0), false)
		}
		time.Sleep(16900 * time.Millisecond)
		b.asked("within 17 s")
		time.Sleep(30 * time.Second)
		if n := len(b.api.Asked()); n != 10 {
			t.Errorf("%d requests after that, want 10", n)
		}
	})
}

// TestRetryAfterAnAge: an API server that asks for an age gets two minutes.
func TestRetryAfterAnAge(t *testing.T) {
	for _, age := range []int{1_000_000_000, math.MaxInt32, 10_000_000_000, 18_446_744_074} {
		live(t, func(b *bed) {
			b.api.Add(bound("web", "0"))
			first := true
			b.api.Faults(func(statustest.Request) (f statustest.Fault) {
				if first {
					f.Status, f.RetryAfter = 429, age
				}
				first = false
				return f
			})
			b.pods.tell(with(bound("web", "0"), corev1.PodRunning, true, 0), false)
			synctest.Wait()
			b.api.Asked()
			time.Sleep(2*time.Minute - time.Second)
			b.asked("before that")
			time.Sleep(2 * time.Second)
			if n := len(b.api.Asked()); n == 0 {
				t.Errorf("an API server that asked for %d s is never asked again", age)
			}
		})
	}
}

// TestOneSlowPod: a pod that the API server is slow about holds up no other.
func TestOneSlowPod(t *testing.T) {
	live(t, func(b *bed) {
		b.api.Add(bound("stuck", "0"))
		b.api.Faults(func(r statustest.Request) (f statustest.Fault) {
			if r.Name == "stuck" {
				f.Delay = time.Hour
			}
			return f
		})
		b.pods.tell(with(bound("stuck", "0"), corev1.PodRunning, true, 0), false)
		for i := range 100 {
			time.Sleep(time.Second)
			p := bound(fmt.Sprint("p", i), fmt.Sprint("u", i))
			b.api.Add(p)
			b.pods.tell(with(p, corev1.PodRunning, true, 0), false)
			synctest.Wait()
			if got := b.api.Pod("default", p.Name); readyOf(got) != corev1.ConditionTrue {
				t.Fatalf("pod %d was held up", i)
			}
		}
	})
}

// TestRandom: pods come, change, end and are made anew under the same name while requests
// fail and daemons are killed. In the end the API server has what is true.
func TestRandom(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { live(t, func(b *bed) { random(b, rand.New(rand.NewPCG(seed, 5))) }) })
		if t.Failed() {
			return
		}
	}
}

func random(b *bed, r *rand.Rand) {
	faults := []statustest.Fault{
		{Refuse: true}, {Lose: true}, {Status: 500}, {Status: 429, RetryAfter: 2}, {Status: 409}, {Delay: 20 * time.Second}, {Delay: time.Second},
	}
	chance := rand.New(rand.NewPCG(r.Uint64(), 1)) // used with the server's lock held
	b.api.Faults(func(statustest.Request) statustest.Fault {
		if chance.IntN(3) == 0 {
			return faults[chance.IntN(len(faults))]
		}
		return statustest.Fault{}
	})
	alive := map[string]*corev1.Pod{} // what the node runs, by name
	restarts := map[string]int32{}
	for step := range 60 {
		name := fmt.Sprint("p", r.IntN(5))
		p := alive[name]
		switch {
		case p == nil && b.api.Pod("default", name) == nil:
			p = bound(name, fmt.Sprint(name, "-", step))
			alive[name], restarts[name] = p, 0
			b.api.Add(p)
		case p == nil: // on its way out
		case r.IntN(6) == 0:
			b.api.Delete("default", name, r.IntN(4) == 0)
			b.pods.tell(with(p, corev1.PodSucceeded, false, restarts[name]), true)
			delete(alive, name)
		case r.IntN(8) == 0:
			b.stop()
			b.start()
		default:
			restarts[name] += r.Int32N(2)
			b.pods.tell(with(p, corev1.PodRunning, r.IntN(2) == 0, restarts[name]), false)
		}
		if r.IntN(10) == 0 {
			b.see(r.IntN(2) == 0)
		}
		time.Sleep(time.Duration(r.IntN(5000)) * time.Millisecond)
	}
	b.api.Faults(func(statustest.Request) statustest.Fault { return statustest.Fault{} })
	b.see(true)
	for name, p := range alive {
		b.pods.tell(with(p, corev1.PodRunning, true, restarts[name]), false)
	}
	time.Sleep(10 * time.Minute)
	pods, _ := b.api.Pods()
	if len(pods) != len(alive) {
		b.t.Errorf("%d pods are left, want %d", len(pods), len(alive))
	}
	for _, p := range pods {
		if a := alive[p.Name]; a == nil || a.UID != p.UID || readyOf(p) != corev1.ConditionTrue || p.Status.ContainerStatuses[0].RestartCount != restarts[p.Name] {
			b.t.Errorf("pod %s (%s) is told as %+v", p.Name, p.UID, p.Status)
		}
	}
}
