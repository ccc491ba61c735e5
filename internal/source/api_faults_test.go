package source

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// TestAway: while the server cannot be asked, in whichever way, nothing ends, it is
// asked now and then, and when it is back nothing was missed.
func TestAway(t *testing.T) {
	status := func(code int, header string) func(*scene) {
		return func(s *scene) {
			s.set(func() {
				s.fault = func(w http.ResponseWriter, _ *http.Request) {
					if header != "" {
						w.Header().Set("Retry-After", header)
					}
					w.WriteHeader(code)
				}
			})
		}
	}
	for _, c := range []struct {
		name  string
		begin func(*scene)
		least int // requests in an hour
		most  int
	}{
		{"refused", func(s *scene) { s.refuse.Store(true) }, 0, 0},
		{"black hole", func(s *scene) { s.freeze.Store(true) }, 0, 0},
		{"500", status(500, ""), 50, 140},
		{"503", status(503, ""), 50, 140},
		{"429", status(429, "90"), 25, 45},
		{"401", status(401, ""), 50, 140},
		{"no answer", func(s *scene) {
			s.set(func() { s.fault = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() } })
		}, 40, 140},
		{"half an answer", func(s *scene) {
			s.set(func() {
				s.fault = func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", protobuf+";stream=watch")
					_, _ = w.Write([]byte{0, 0, 1, 0, 'k', '8', 's', 0})
					w.(http.Flusher).Flush()
					panic(http.ErrAbortHandler)
				}
			})
		}, 50, 140},
		{"nonsense", func(s *scene) {
			s.set(func() {
				s.fault = func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>hello</html>") }
			})
		}, 50, 140},
	} {
		for _, h2 := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, HTTP/2 %t", c.name, h2), func(t *testing.T) {
				play(t, h2, func(s *scene, _ *APIConfig) { s.add("a", "b") }, func(s *scene) {
					s.wants("before", "a b")
					s.asked()
					c.begin(s)
					s.cut()
					s.remove("a")
					s.add("c")
					s.after(time.Hour)
					s.wants("away", "a b")
					s.problem("away", "watch the pods of this node")
					if n := len(s.asked()); n < c.least || n > c.most {
						t.Errorf("it was asked %d times in an hour, want %d to %d", n, c.least, c.most)
					}
					s.refuse.Store(false)
					s.freeze.Store(false)
					s.set(func() { s.fault = nil })
					s.after(3 * time.Minute)
					s.wants("back", "b c")
					s.problem("back", "")
				})
			})
		}
	}
}

// TestNeverThere: without a server from the start, others are not held up; when it
// comes, its pods are there.
func TestNeverThere(t *testing.T) {
	play(t, true, func(s *scene, _ *APIConfig) { s.add("a"); s.refuse.Store(true) }, func(s *scene) {
		if !s.last.Synced || s.last.Trusted {
			t.Errorf("others are held up, or something may end: %+v", s.last)
		}
		s.after(72 * time.Hour)
		s.refuse.Store(false)
		s.after(2 * lastPause)
		s.wants("there", "a")
	})
}

// TestResume: a watch that breaks goes on where it was, without another list, and at
// once.
func TestResume(t *testing.T) {
	play(t, true, func(s *scene, _ *APIConfig) { s.add("a") }, func(s *scene) {
		s.after(5 * time.Second)
		s.asked()
		s.cut()
		s.after(0)
		s.add("b")
		s.wants("at once", "a b")
		s.seen("at once", "watch@101")
		s.after(time.Hour)
		s.add("c")
		s.wants("later", "a b c")
		got := s.asked()
		if n := len(got); n < 8 || n > 14 || strings.Contains(strings.Join(got, " "), "list") {
			t.Errorf("in an hour it was asked for %v", got)
		}
	})
}

// TestStall: a connection that carries nothing any more is noticed within 45 seconds,
// and so is a server behind a proxy that is there, within two bookmarks.
func TestStall(t *testing.T) {
	for _, h2 := range []bool{true, false} {
		for _, wait := range []time.Duration{0, time.Second, 61 * time.Second, 10 * time.Minute} {
			t.Run(fmt.Sprintf("HTTP/2 %t after %s", h2, wait), func(t *testing.T) {
				play(t, h2, func(s *scene, _ *APIConfig) { s.add("a") }, func(s *scene) {
					s.after(wait)
					s.wants("before", "a")
					s.stall()
					s.add("b")
					s.after(45*time.Second + 2*firstPause)
					s.wants("within 45 s", "a b")
				})
			})
		}
	}
	play(t, true, func(s *scene, _ *APIConfig) { s.add("a") }, func(s *scene) {
		s.after(time.Minute * 2)
		s.mute.Store(true)
		s.add("b")
		s.after(time.Second)
		s.mute.Store(false)
		s.after(silentPinged + 2*firstPause)
		s.wants("a dead server behind a proxy that lives", "a b")
	})
}

// TestGone: when the server has forgotten what came after, it is asked for everything,
// and who is not there is gone.
func TestGone(t *testing.T) {
	for _, plain := range []bool{false, true} {
		play(t, true, func(s *scene, _ *APIConfig) { s.add("a", "b"); s.noStream = plain }, func(s *scene) {
			s.after(5 * time.Second)
			s.asked()
			s.refuse.Store(true)
			s.cut()
			s.remove("a")
			s.add("c")
			s.compact()
			s.refuse.Store(false)
			s.after(10 * time.Second)
			s.wants("anew", "b c")
		})
	}
}

// relist makes the source ask for everything.
func (s *scene) relist() {
	s.refuse.Store(true)
	s.cut()
	s.add("extra")
	s.remove("extra")
	s.compact()
	s.refuse.Store(false)
}

func sixPods(s *scene, _ *APIConfig) { s.add(strings.Fields(six)...) }

// TestBrake: a list that lacks most pods ends none before the server has said the
// same again. What is deleted by the watch is obeyed at once.
func TestBrake(t *testing.T) {
	lost := func(s *scene) { s.set(func() { s.hidden = true }) }
	found := func(s *scene) { s.set(func() { s.hidden = false }) }
	t.Run("the pods are there", func(t *testing.T) {
		play(t, true, sixPods, func(s *scene) {
			lost(s)
			s.relist()
			s.after(6 * time.Second)
			s.wants("doubted", six)
			s.problem("doubted", "the server's list lacks 6 of 6 pods")
			s.remove("p1")
			s.add("p7")
			s.wants("by the watch", "p2 p3 p4 p5 p6 p7")
			found(s)
			s.after(confirmAfter + time.Second)
			s.wants("asked again", "p2 p3 p4 p5 p6 p7")
			s.problem("asked again", "")
			s.update("p2", func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} })
			s.wants("and on", "p2 p3 p4 p5 p6 p7")
			if s.last.Pods[0].Labels["a"] != "b" {
				t.Error("changes are not seen any more")
			}
		})
	})
	t.Run("they are not", func(t *testing.T) {
		play(t, true, sixPods, func(s *scene) {
			s.refuse.Store(true)
			s.cut()
			s.remove(strings.Fields(six)...)
			s.add("p7")
			s.compact()
			s.refuse.Store(false)
			s.after(5 * time.Second)
			s.wants("doubted", six+" p7")
			s.set(func() { s.fault = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) } })
			s.after(confirmAfter)
			s.wants("no answer", six+" p7")
			s.set(func() { s.fault = nil })
			s.after(2*confirmAfter + time.Second)
			s.wants("asked again", "p7")
			s.problem("asked again", "")
		})
	})
	t.Run("nor what ends, is over or mirrors", func(t *testing.T) {
		play(t, true, sixPods, func(s *scene) {
			s.add("ending", "over")
			s.update("ending", func(p *corev1.Pod) {
				p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: time.Now()}, new(int64(30))
			})
			s.update("over", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
			mirror := apiPod("static-node1")
			mirror.Annotations = map[string]string{annotationMirror: "hash"}
			s.change(watch.Added, mirror)
			s.wants("before", "ending over "+six)
			s.refuse.Store(true)
			s.cut()
			s.remove(strings.Fields(six)...)
			s.remove("ending", "over")
			s.change(watch.Deleted, mirror)
			s.add("p7")
			s.compact()
			s.refuse.Store(false)
			s.after(5 * time.Second)
			s.wants("doubted", "ending over "+six+" p7")
			s.after(confirmAfter + time.Second)
			s.wants("asked again", "p7")
			if len(s.last.Mirrors)+len(s.last.Ending) > 0 {
				t.Errorf("the mirrors %v and the ending %v stay", s.last.Mirrors, s.last.Ending)
			}
		})
	})
	t.Run("a few may go", func(t *testing.T) {
		play(t, true, sixPods, func(s *scene) {
			s.refuse.Store(true)
			s.cut()
			s.remove("p1", "p2", "p3", "p4")
			s.compact()
			s.refuse.Store(false)
			s.after(5 * time.Second)
			s.wants("four of six", "p5 p6")
		})
	})
	t.Run("switched off", func(t *testing.T) {
		play(t, true, func(s *scene, cfg *APIConfig) { sixPods(s, cfg); cfg.NoBrake = true }, func(s *scene) {
			lost(s)
			s.relist()
			s.after(6 * time.Second)
			s.wants("at once", "")
		})
	})
	t.Run("at the daemon's start", func(t *testing.T) {
		play(t, true, func(s *scene, cfg *APIConfig) {
			sixPods(s, cfg)
			lost(s)
			cfg.Running = func() []types.UID {
				all := []types.UID{"0123456789abcdef0123456789abcdef"} // a static one
				for _, name := range strings.Fields(six) {
					all = append(all, uidOf(name))
				}
				return all
			}
		}, func(s *scene) {
			s.after(5 * time.Second)
			s.problem("doubted", "lacks 6 of 6")
			if s.last.Trusted {
				t.Error("what runs may be ended")
			}
			found(s)
			s.after(confirmAfter + time.Second)
			s.wants("asked again", six)
			if !s.last.Trusted {
				t.Error("it is not trusted after all")
			}
		})
	})
}

// TestBackInTime: a server that is set back changes nothing and ends nothing at
// first; when it says the same again, that counts.
func TestBackInTime(t *testing.T) {
	play(t, true, func(s *scene, _ *APIConfig) { s.add("a", "b") }, func(s *scene) {
		s.update("a", func(p *corev1.Pod) { p.Labels = map[string]string{"v": "2"} })
		s.wants("before", "a b")
		s.after(5 * time.Second)
		s.cut()
		s.restoreBackup(50, "a", "old")
		s.after(2 * time.Minute) // a bookmark tells
		s.wants("believed", "a old")
		if s.last.Pods[0].Labels["v"] != "" {
			t.Error("it is still the pod of before")
		}
		s.add("c")
		s.wants("and on", "a c old")
	})
	play(t, true, func(s *scene, _ *APIConfig) { s.add("a", "b") }, func(s *scene) {
		s.update("a", func(p *corev1.Pod) { p.Labels = map[string]string{"v": "2"} })
		s.after(5 * time.Second)
		s.set(func() {
			s.fault = func(w http.ResponseWriter, _ *http.Request) { // as servers say it that know
				err := apierrors.NewTimeoutError("Too large resource version: 103, current: 50", 1)
				err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge}}
				s.set(func() { s.fault = nil })
				s.answerError(w, err)
			}
		})
		s.cut()
		s.restoreBackup(50, "a", "old")
		s.after(10 * time.Second)
		s.wants("doubted", "a b")
		s.problem("doubted", "older than 103")
		if s.last.Pods[0].Labels["v"] != "2" {
			t.Error("older data has replaced newer")
		}
		s.after(confirmAfter)
		s.wants("believed", "a old")
		s.problem("believed", "")
	})
}
