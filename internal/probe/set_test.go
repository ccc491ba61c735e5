package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// memory keeps records as Files does, over daemons.
type memory struct {
	mu  sync.Mutex
	all map[string]pod.Health
	err error
}

func (m *memory) Load() (map[string]pod.Health, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.all), m.err
}

func (m *memory) Save(c string, h pod.Health) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.all[c] = h
	}
	return m.err
}

func (m *memory) Remove(c string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.all, c)
	return m.err
}

// script is what a container answers a probe at a time.
type script func(ctx context.Context, at time.Duration) Outcome

// slow answers after a time.
func slow(d time.Duration, r Result) script {
	return func(ctx context.Context, _ time.Duration) Outcome {
		select {
		case <-time.After(d):
			return Outcome{Result: r}
		case <-ctx.Done():
			return Outcome{Err: ctx.Err()}
		}
	}
}

// scene is a node with probes whose containers answer by a script, in virtual
// time.
type scene struct {
	t       *testing.T
	begun   time.Time
	records *memory
	answers map[Kind]script
	set     *Set
	cancel  context.CancelFunc
	done    chan error

	mu    sync.Mutex
	d     pod.Desired
	state pod.RuntimeState
	lines []string
	shown map[string]string
}

func newScene(t *testing.T, answers map[Kind]script) *scene {
	s := &scene{t: t, begun: time.Now(), records: &memory{all: map[string]pod.Health{}}, answers: answers, shown: map[string]string{}}
	s.state = pod.RuntimeState{UID: "u", Sandboxes: []pod.Sandbox{{ID: "s", State: pod.SandboxReady, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.7")}}}}
	s.start()
	return s
}

// start starts a daemon over what is there.
func (s *scene) start() {
	set, err := New(Config{Prober: s, Records: s.records, Wake: s.woken, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.set, s.cancel, s.done = set, cancel, make(chan error, 1)
	go func() { s.done <- set.Run(ctx) }()
}

func (s *scene) stop() {
	s.cancel()
	if err := <-s.done; err != nil {
		s.t.Error(err)
	}
}

// Probe implements Prober.
func (s *scene) Probe(ctx context.Context, t *Target) Outcome {
	for k := range kinds {
		if k.of(t.Spec) == t.Probe {
			at := time.Since(s.begun)
			s.say(at, "%s?", k)
			if f := s.answers[k]; f != nil {
				return f(ctx, at)
			}
		}
	}
	return Outcome{Result: Success}
}

func (s *scene) say(at time.Duration, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf("%s %s", at, fmt.Sprintf(format, args...)))
}

func (s *scene) woken(types.UID) { s.watch() }

// watch is one turn of the pod's worker.
func (s *scene) watch() {
	s.mu.Lock()
	d, state := s.d, s.state
	s.mu.Unlock()
	for id, h := range s.set.Watch(d, state) {
		text := fmt.Sprintf("%s started=%t ready=%t", id, h.Started, h.Ready)
		if h.Unhealthy != "" {
			text += " [" + h.Unhealthy + "]"
		}
		if h.Grace != nil {
			text += fmt.Sprintf(" grace=%d", *h.Grace)
		}
		s.mu.Lock()
		before := s.shown[id]
		s.shown[id] = text
		s.mu.Unlock()
		if text != before {
			s.say(time.Since(s.begun), "%s", text)
		}
	}
}

// runs shows the pod's container in a run of that id that started now.
func (s *scene) runs(c corev1.Container, ids ...string) {
	c.Name = "app"
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u", Namespace: "n", Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{c}}}
	s.mu.Lock()
	s.d = pod.Desired{Wish: pod.WishRun, Pod: p}
	s.state.Containers = nil
	for _, id := range ids {
		s.state.Containers = append(s.state.Containers, pod.Container{ID: id, Name: "app", SandboxID: "s", State: pod.ContainerRunning, Started: time.Now()})
	}
	s.mu.Unlock()
	s.watch()
}

func (s *scene) log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "\n")
}

// wants compares what happened; what happens in the same instant comes in either
// order.
func (s *scene) wants(want string) {
	s.t.Helper()
	inOrder := func(text string) []string {
		lines := strings.Split(strings.TrimSpace(text), "\n")
		slices.SortFunc(lines, func(a, b string) int {
			at, _, _ := strings.Cut(a, " ")
			bt, _, _ := strings.Cut(b, " ")
			x, _ := time.ParseDuration(at)
			y, _ := time.ParseDuration(bt)
			return cmp.Or(cmp.Compare(x, y), cmp.Compare(a, b))
		})
		return lines
	}
	if got := s.log(); !slices.Equal(inOrder(got), inOrder(want)) {
		s.t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// asks is a probe with the API's defaults, changed.
func asks(change ...func(*corev1.Probe)) *corev1.Probe {
	p := &corev1.Probe{TimeoutSeconds: 1, PeriodSeconds: 10, SuccessThreshold: 1, FailureThreshold: 3}
	for _, f := range change {
		f(p)
	}
	return p
}

func delay(n int32) func(*corev1.Probe)     { return func(p *corev1.Probe) { p.InitialDelaySeconds = n } }
func every(n int32) func(*corev1.Probe)     { return func(p *corev1.Probe) { p.PeriodSeconds = n } }
func failures(n int32) func(*corev1.Probe)  { return func(p *corev1.Probe) { p.FailureThreshold = n } }
func successes(n int32) func(*corev1.Probe) { return func(p *corev1.Probe) { p.SuccessThreshold = n } }
func grace(n int64) func(*corev1.Probe) {
	return func(p *corev1.Probe) { p.TerminationGracePeriodSeconds = &n }
}

// between answers with success from (inclusive) and until (exclusive) a time.
func between(from, until time.Duration) func(context.Context, time.Duration) Outcome {
	return func(_ context.Context, at time.Duration) Outcome {
		if at >= from && at < until {
			return Outcome{Result: Success}
		}
		return Outcome{Result: Failure, Text: "no"}
	}
}

const forever = time.Hour

var never = between(forever, forever)

// TestRules: what the probes of one run do and what verdict follows, in 44
// seconds.
func TestRules(t *testing.T) {
	type answers = map[Kind]script
	for _, c := range []struct {
		name    string
		c       corev1.Container
		answers answers
		want    string
	}{
		{"readiness is asked at once and every period", corev1.Container{ReadinessProbe: asks(every(20))}, nil, `
0s a started=true ready=false
0s Readiness?
0s a started=true ready=true
20s Readiness?
40s Readiness?`},
		{"the delay counts from the container's start", corev1.Container{ReadinessProbe: asks(delay(7), every(30))}, nil, `
0s a started=true ready=false
7s Readiness?
7s a started=true ready=true
37s Readiness?`},
		{"three failures in a row end readiness, one success brings it back", corev1.Container{ReadinessProbe: asks(every(5))},
			answers{Readiness: func(_ context.Context, at time.Duration) Outcome {
				if at == 5*time.Second || at >= 15*time.Second && at < 35*time.Second {
					return Outcome{Result: Failure}
				}
				return Outcome{Result: Success}
			}}, `
0s a started=true ready=false
0s Readiness?
0s a started=true ready=true
5s Readiness?
10s Readiness?
15s Readiness?
20s Readiness?
25s Readiness?
25s a started=true ready=false
30s Readiness?
35s Readiness?
35s a started=true ready=true
40s Readiness?`},
		{"so many successes in a row", corev1.Container{ReadinessProbe: asks(every(10), successes(3))},
			answers{Readiness: between(10*time.Second, forever)}, `
0s a started=true ready=false
0s Readiness?
10s Readiness?
20s Readiness?
30s Readiness?
30s a started=true ready=true
40s Readiness?`},
		{"a warning is a success", corev1.Container{ReadinessProbe: asks(every(60))},
			answers{Readiness: func(context.Context, time.Duration) Outcome { return Outcome{Result: Warning} }}, `
0s a started=true ready=false
0s Readiness?
0s a started=true ready=true`},
		{"liveness is a success until it has failed three times, and silent then", corev1.Container{LivenessProbe: asks(every(5), grace(7))},
			answers{Liveness: never}, `
0s a started=true ready=true
5s Liveness?
10s Liveness?
15s Liveness?
15s a started=true ready=true [Container app failed liveness probe, will be restarted] grace=7`},
		{"readiness goes on beside a failed liveness", corev1.Container{LivenessProbe: asks(every(15), failures(1)), ReadinessProbe: asks(every(20), failures(1))},
			answers{Liveness: never, Readiness: between(0, 30*time.Second)}, `
0s a started=true ready=false
0s Readiness?
0s a started=true ready=true
15s Liveness?
15s a started=true ready=true [Container app failed liveness probe, will be restarted]
20s Readiness?
40s Readiness?
40s a started=true ready=false [Container app failed liveness probe, will be restarted]`},
		{"startup holds up the others, and ends", corev1.Container{StartupProbe: asks(every(10)), LivenessProbe: asks(every(30)), ReadinessProbe: asks(every(30))},
			answers{Startup: between(10*time.Second, forever)}, `
0s a started=false ready=false
0s Startup?
10s Startup?
10s a started=true ready=false
10s Readiness?
10s a started=true ready=true
30s Liveness?
40s Readiness?`},
		{"without readiness what has started is ready", corev1.Container{StartupProbe: asks()}, nil, `
0s a started=false ready=false
0s Startup?
0s a started=true ready=true`},
		{"startup fails after a period for each failure allowed", corev1.Container{StartupProbe: asks(every(10), failures(2), grace(3)), LivenessProbe: asks(), ReadinessProbe: asks()},
			answers{Startup: never}, `
0s a started=false ready=false
0s Startup?
10s Startup?
20s Startup?
20s a started=false ready=false [Container app failed startup probe, will be restarted] grace=3`},
		{"a probe that could not be made is tried three times and says nothing", corev1.Container{LivenessProbe: asks(every(20), failures(1))},
			answers{Liveness: func(context.Context, time.Duration) Outcome { return Outcome{Err: errors.New("no")} }}, `
0s a started=true ready=true
20s Liveness?
20s Liveness?
20s Liveness?
40s Liveness?
40s Liveness?
40s Liveness?`},
		{"the second try counts", corev1.Container{ReadinessProbe: asks(every(60))},
			answers{Readiness: failsOnce()}, `
0s a started=true ready=false
0s Readiness?
0s Readiness?
0s a started=true ready=true`},
		{"a panic is one try", corev1.Container{ReadinessProbe: asks(every(60))},
			answers{Readiness: func(context.Context, time.Duration) Outcome { panic("hostile") }}, `
0s a started=true ready=false
0s Readiness?
0s Readiness?
0s Readiness?`},
		{"one that takes long is not asked twice at a time", corev1.Container{ReadinessProbe: asks(every(2), func(p *corev1.Probe) { p.TimeoutSeconds = 15 })},
			answers{Readiness: slow(15*time.Second, Success)}, `
0s a started=true ready=false
0s Readiness?
15s a started=true ready=true
15s Readiness?
30s Readiness?`},
		{"a failure long after its timeout says nothing", corev1.Container{LivenessProbe: asks(every(10), failures(1))},
			answers{Liveness: slow(20*time.Second, Failure)}, `
0s a started=true ready=true
10s Liveness?
30s Liveness?`},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t, c.answers)
				s.runs(c.c, "a")
				time.Sleep(44 * time.Second)
				s.stop()
				s.wants(c.want)
			})
		})
	}
}

func failsOnce() script {
	var once sync.Once
	return func(context.Context, time.Duration) Outcome {
		out := Outcome{Result: Success}
		once.Do(func() { out = Outcome{Err: errors.New("no")} })
		return out
	}
}

// TestNewRun: a run that failed is asked nothing more; the next one begins anew,
// and the first one's verdict and record go.
func TestNewRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, map[Kind]script{Liveness: between(30*time.Second, forever)})
		c := corev1.Container{LivenessProbe: asks(every(10), failures(2)), ReadinessProbe: asks(every(60))}
		s.runs(c, "a")
		time.Sleep(25 * time.Second)
		s.runs(c) // it has ended
		time.Sleep(time.Second)
		if left, _ := s.records.Load(); len(left) > 0 {
			t.Errorf("records left: %v", left)
		}
		s.runs(c, "b")
		time.Sleep(25 * time.Second)
		s.stop()
		want := `0s a started=true ready=false
0s Readiness?
0s a started=true ready=true
10s Liveness?
20s Liveness?
20s a started=true ready=true [Container app failed liveness probe, will be restarted]
26s b started=true ready=false
26s Readiness?
26s b started=true ready=true
36s Liveness?
46s Liveness?`
		s.wants(want)
	})
}

// TestLeaving: of a pod on its way out only readiness is still asked.
func TestLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, map[Kind]script{Readiness: between(0, 15*time.Second), Liveness: never, Startup: never})
		c := corev1.Container{LivenessProbe: asks(failures(1)), ReadinessProbe: asks(failures(1))}
		s.runs(c, "a")
		time.Sleep(5 * time.Second)
		s.mu.Lock()
		s.d.Wish = pod.WishAbsent
		s.mu.Unlock()
		s.watch()
		time.Sleep(20 * time.Second)
		s.stop()
		want := `0s a started=true ready=false
0s Readiness?
0s a started=true ready=true
10s Readiness?
20s Readiness?
20s a started=true ready=false`
		s.wants(want)
	})
}

// TestDaemonRestarts: the next daemon takes over the verdicts, a failed one
// included, and asks within a share of the period.
func TestDaemonRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, map[Kind]script{Startup: between(0, 5*time.Second), Readiness: between(0, 33*time.Second), Liveness: between(0, 90*time.Second)})
		c := corev1.Container{StartupProbe: asks(), ReadinessProbe: asks(every(20), failures(1)), LivenessProbe: asks(every(20), failures(1))}
		s.runs(c, "a")
		time.Sleep(30 * time.Second)
		s.stop()
		time.Sleep(5 * time.Second)
		s.lines, s.shown = nil, map[string]string{}
		s.start()
		s.watch()
		if got, want := s.log(), "35s a started=true ready=true"; got != want {
			t.Fatalf("a new daemon says %q, want %q", got, want)
		}
		time.Sleep(20 * time.Second)
		first := strings.Split(s.log(), "\n")[1]
		at, err := time.ParseDuration(strings.Fields(first)[0])
		if err != nil || at == 35*time.Second || at >= 55*time.Second {
			t.Errorf("the first probe of a new daemon is %q, want one within the period", first)
		}
		if !strings.Contains(s.log(), "a started=true ready=false") {
			t.Errorf("readiness was not asked again: %s", s.log())
		}
		time.Sleep(time.Minute)
		s.stop()
		s.lines, s.shown = nil, map[string]string{}
		s.start()
		s.watch()
		if got := s.log(); !strings.HasSuffix(got, "started=true ready=false [Container app failed liveness probe, will be restarted]") {
			t.Errorf("after a liveness failure a new daemon says %q", got)
		}
		time.Sleep(10 * time.Second)
		s.stop()
	})
}

// TestRecordsFail: what cannot be kept is judged all the same.
func TestRecordsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, nil)
		s.records.err = errors.New("disk full")
		s.runs(corev1.Container{ReadinessProbe: asks(every(60))}, "a")
		time.Sleep(time.Second)
		s.stop()
		if got := s.log(); !strings.HasSuffix(got, "a started=true ready=true") {
			t.Errorf("got\n%s", got)
		}
	})
}

// TestStray: the record of a run that ended while no daemon watched goes.
func TestStray(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, nil)
		s.records.all = map[string]pod.Health{"a": {}, "dead": {}}
		s.set.Stray(func(id string) bool { return id == "a" })
		time.Sleep(time.Second)
		s.stop()
		if _, kept := s.records.all["a"]; !kept || len(s.records.all) != 1 {
			t.Errorf("records left: %v, want that of the container that runs", s.records.all)
		}
	})
}

// TestTogether: a startup probe that is started a moment early, together with
// another one, still counts as one of its time, and is not asked again at once.
func TestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, map[Kind]script{Startup: never})
		other := corev1.Container{Name: "other", ReadinessProbe: asks()}
		s.set.Watch(pod.Desired{Wish: pod.WishRun, Pod: &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{other}}}},
			pod.RuntimeState{UID: "o", Containers: []pod.Container{{ID: "o", Name: "other", State: pod.ContainerRunning, Started: time.Now()}}})
		time.Sleep(5 * time.Millisecond)
		s.runs(corev1.Container{StartupProbe: asks(failures(2))}, "a")
		time.Sleep(44 * time.Second)
		s.stop()
		want := `0s Readiness?
5ms a started=false ready=false
5ms Startup?
10s Readiness?
10s Startup?
20s Readiness?
20s Startup?
20s a started=false ready=false [Container app failed startup probe, will be restarted]
30s Readiness?
40s Readiness?`
		s.wants(want)
	})
}

// TestStuckHoldsUpNobody: with more stuck probes than may run at a time the
// others are asked within a second of their time.
func TestStuckHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, map[Kind]script{
			Liveness:  slow(30*time.Second, Failure),
			Readiness: func(context.Context, time.Duration) Outcome { return Outcome{Result: Success} },
		})
		run := func(c *corev1.Container) {
			c.Name = "app"
			for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe} {
				if p != nil {
					p.Exec = &corev1.ExecAction{}
				}
			}
		}
		stuck := corev1.Container{LivenessProbe: asks(every(1), func(p *corev1.Probe) { p.TimeoutSeconds = 60 })}
		fine := corev1.Container{ReadinessProbe: asks(every(60))}
		run(&stuck)
		run(&fine)
		late := 0
		for i := range 3*execSlots + 1 {
			c, start := &stuck, time.Now()
			if i == 3*execSlots {
				c = &fine
				time.Sleep(time.Second)
				start = time.Now()
			}
			uid := types.UID(fmt.Sprint(i))
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid}, Spec: corev1.PodSpec{Containers: []corev1.Container{*c}}}
			s.set.Watch(pod.Desired{Wish: pod.WishRun, Pod: p}, pod.RuntimeState{UID: uid, Containers: []pod.Container{{ID: string(uid), Name: "app", State: pod.ContainerRunning, Started: start}}})
		}
		time.Sleep(time.Second)
		for line := range strings.Lines(s.log()) {
			if strings.Contains(line, "Readiness?") {
				late++
			}
		}
		if late != 1 {
			t.Errorf("the probe of a sound container was held up by stuck ones:\n%s", s.log())
		}
		time.Sleep(time.Minute)
		s.stop()
	})
}
