package shutdown

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"nodeagent/internal/pod"
)

func TestGroups(t *testing.T) {
	by := func(all ...int64) (out []kubeletv1beta1.ShutdownGracePeriodByPodPriority) {
		for i := 0; i < len(all); i += 2 {
			out = append(out, kubeletv1beta1.ShutdownGracePeriodByPodPriority{Priority: int32(all[i]), ShutdownGracePeriodSeconds: all[i+1]})
		}
		return out
	}
	for _, c := range []struct {
		whole, critical time.Duration
		by              []kubeletv1beta1.ShutdownGracePeriodByPodPriority
		want            string
	}{
		{0, 0, nil, "[]"},
		{30 * time.Second, 10 * time.Second, nil, "[{0 20s} {2000000000 10s}]"},
		{30 * time.Second, 0, nil, "[{0 30s} {2000000000 0s}]"},
		{10 * time.Second, 30 * time.Second, nil, "[]"},
		{0, 10 * time.Second, nil, "[]"},
		{30 * time.Second, 10 * time.Second, by(1000, 60, 0, 120, -5, 1), "[{-5 1s} {0 2m0s} {1000 1m0s}]"},
	} {
		if got := fmt.Sprint(Groups(c.whole, c.critical, c.by)); got != c.want {
			t.Errorf("of %v, %v, %v: %s, want %s", c.whole, c.critical, c.by, got, c.want)
		}
	}
}

// running is a pod of that name and priority.
func running(name string, priority int32) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Spec: corev1.PodSpec{Priority: &priority}}
}

func TestPlan(t *testing.T) {
	ended, none := running("ended", 0), running("none", 0)
	ended.Status.Phase, none.Spec.Priority = corev1.PodSucceeded, nil
	pods := []*corev1.Pod{running("below", -100), running("zero", 0), none, running("between", 500), running("at", 1000), running("above", 9000), ended}
	groups := []Group{{0, 1}, {200, 2}, {1000, 3}, {2_000_000_000, 4}}
	if got, want := fmt.Sprint(Plan(groups, pods)), "[{{0 1ns} [below zero none]} {{200 2ns} [between]} {{1000 3ns} [at above]}]"; got != want {
		t.Errorf("the steps are %s, want %s", got, want)
	}
	if got := Plan(nil, pods); len(got) != 0 {
		t.Errorf("without groups the steps are %v", got)
	}
}

// world is a machine and its pods. Each pod ends so long after it was told to.
type world struct {
	t     *testing.T
	begun time.Time

	mu      sync.Mutex
	holds   int  // that were taken
	held    bool // by the latest
	refuses error
	going   bool // a shutdown is under way
	news    chan bool
	lost    chan struct{}
	pods    []*corev1.Pod
	takes   map[types.UID]time.Duration
	told    map[types.UID]time.Time
	log     []string
}

func (w *world) say(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%v ", time.Since(w.begun))+fmt.Sprintf(format, args...))
}

func (w *world) Hold(_ context.Context, least time.Duration) (Hold, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuses != nil {
		return nil, w.refuses
	}
	w.holds++
	w.held = !w.going
	w.say("held for %v", least)
	w.news, w.lost = make(chan bool, 4), make(chan struct{})
	return &hold{w: w, news: w.news, lost: w.lost, first: true, mine: w.held}, nil
}

type hold struct {
	w     *world
	news  chan bool
	lost  chan struct{}
	first bool
	mine  bool
}

func (h *hold) Next(ctx context.Context) (bool, error) {
	if h.first {
		h.first = false
		h.w.mu.Lock()
		defer h.w.mu.Unlock()
		return h.w.going, nil
	}
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-h.lost:
		return false, errors.New("the bus has ended")
	case begun := <-h.news:
		return begun, nil
	}
}

func (h *hold) Release() {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if h.mine {
		h.mine, h.w.held = false, false
		h.w.say("let go")
	}
}

// change changes the world.
func (w *world) change(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
}

func (w *world) Pods() []*corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pods
}

func (w *world) OfferEndings(all map[types.UID]*pod.Ending) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for uid, e := range all {
		if _, known := w.told[uid]; !known {
			w.told[uid] = time.Now()
			names = append(names, fmt.Sprintf("%s %ds", uid, e.Grace))
		}
	}
	slices.Sort(names)
	w.say("end %s", strings.Join(names, ", "))
}

func (w *world) AwaitEnded(ctx context.Context, uids []types.UID) error {
	for _, uid := range uids {
		w.mu.Lock()
		left := time.Until(w.told[uid].Add(w.takes[uid]))
		w.mu.Unlock()
		select {
		case <-time.After(left):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// shut tells of a shutdown, or that it was called off.
func (w *world) shut(begun bool) {
	w.mu.Lock()
	w.going = begun
	news := w.news
	w.mu.Unlock()
	news <- begun
	synctest.Wait()
}

// play runs a Shutdown with 20 s for pods and 10 s for critical ones.
func play(t *testing.T, do func(w *world, s *Shutdown)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, begun: time.Now(), told: map[types.UID]time.Time{}, takes: map[types.UID]time.Duration{}}
		w.pods = []*corev1.Pod{running("a", 0), running("b", 7), running("c", 2_000_000_000)}
		s, err := New(Config{
			Groups: Groups(30*time.Second, 10*time.Second, nil), Machine: w, Pods: w,
			Event:  func(reason, message string) { w.mu.Lock(); defer w.mu.Unlock(); w.say("%s: %s", reason, message) },
			Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		synctest.Wait()
		do(w, s)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// logged demands what happened.
func (w *world) logged(want ...string) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if got, want := strings.Join(w.log, "\n"), strings.Join(want, "\n"); got != want {
		w.t.Errorf("what happened was\n%s\nwant\n%s", got, want)
	}
	w.log = nil
}

// TestShutdown: the machine goes as soon as all pods have ended, the critical ones last.
func TestShutdown(t *testing.T) {
	play(t, func(w *world, s *Shutdown) {
		w.takes["a"], w.takes["b"], w.takes["c"] = 3*time.Second, 5*time.Second, time.Second
		w.logged("0s held for 30s")
		if s.Begun() {
			t.Error("it has begun by itself")
		}
		w.shut(true)
		if !s.Begun() {
			t.Error("nobody is told that it has begun")
		}
		time.Sleep(time.Minute)
		w.logged("0s NodeShutdown: Shutdown manager detected shutdown event", "0s end a 20s, b 20s", "5s end c 10s", "6s let go")
	})
}

// TestStuck: pods that do not end hold up the machine for no longer than their group has.
func TestStuck(t *testing.T) {
	play(t, func(w *world, s *Shutdown) {
		w.takes["a"], w.takes["c"] = time.Hour, time.Hour
		w.shut(true)
		time.Sleep(time.Minute)
		w.logged("0s held for 30s", "0s NodeShutdown: Shutdown manager detected shutdown event", "0s end a 20s, b 20s", "20s end c 10s", "30s let go")
	})
}

// TestCalledOff: pods whose turn had not come go on, and the next shutdown waits again.
func TestCalledOff(t *testing.T) {
	play(t, func(w *world, s *Shutdown) {
		w.takes["a"] = time.Hour
		w.shut(true)
		time.Sleep(2 * time.Second)
		w.shut(false)
		w.logged("0s held for 30s", "0s NodeShutdown: Shutdown manager detected shutdown event", "0s end a 20s, b 20s",
			"2s let go", "2s NodeShutdown: Shutdown manager detected shutdown cancellation", "2s held for 30s")
		if s.Begun() {
			t.Error("it goes on")
		}
		w.change(func() { w.pods = w.pods[2:] })
		time.Sleep(time.Hour)
		w.shut(true)
		time.Sleep(time.Minute)
		w.logged("1h0m2s NodeShutdown: Shutdown manager detected shutdown event", "1h0m2s end c 10s", "1h0m2s let go")
	})
}

// TestBusEnds: a bus that ends is asked again, a shutdown that had begun still waits,
// and one that was called off meanwhile is.
func TestBusEnds(t *testing.T) {
	play(t, func(w *world, s *Shutdown) {
		w.change(func() { w.refuses = errors.New("no bus") })
		close(w.lost)
		time.Sleep(20 * time.Second)
		w.logged("0s held for 30s", "0s let go")
		w.change(func() { w.refuses = nil })
		time.Sleep(time.Minute)
		w.logged("31s held for 30s")
		w.takes["a"] = time.Hour
		w.shut(true)
		w.change(func() { close(w.lost) })
		time.Sleep(5 * time.Second)
		w.logged("1m20s NodeShutdown: Shutdown manager detected shutdown event", "1m20s end a 20s, b 20s", "1m21s held for 30s")
		if !s.Begun() {
			t.Error("with the bus the shutdown ended")
		}
		w.change(func() {
			close(w.lost)
			w.going = false
		})
		time.Sleep(5 * time.Second)
		w.logged("1m26s held for 30s", "1m26s let go", "1m26s NodeShutdown: Shutdown manager detected shutdown cancellation", "1m26s let go", "1m26s held for 30s")
	})
}

// TestBegun: a daemon that starts while the machine goes down ends pods all the same.
func TestBegun(t *testing.T) {
	play(t, func(w *world, s *Shutdown) {
		w.change(func() {
			close(w.lost)
			w.going = true
		})
		time.Sleep(time.Minute)
		w.logged("0s held for 30s", "0s let go", "1s held for 30s", "1s NodeShutdown: Shutdown manager detected shutdown event", "1s end a 20s, b 20s", "1s end c 10s")
	})
}
