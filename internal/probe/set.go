package probe

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// Prober asks a container once. It returns by the target's timeout, and soon
// when ctx ends.
type Prober interface {
	Probe(ctx context.Context, t *Target) Outcome
}

// Records keeps verdicts for the next daemon: a container that runs on while
// this one is replaced must not stop being ready. They may be lost without
// harm; the run is judged anew then.
type Records interface {
	Load() (map[string]pod.Health, error)
	Save(container string, h pod.Health) error
	Remove(container string) error
}

// Event is what a probe has to tell an operator, in kubelet's words.
type Event struct {
	Pod       *corev1.Pod
	Container string
	Reason    string // Unhealthy or ProbeWarning
	Message   string
	Again     bool // the same as the time before
}

// Config is what a set of probes works with.
type Config struct {
	Prober  Prober
	Records Records
	// NodeHost tells the address of pods on the host network; nil: there is none. It
	// must not block.
	NodeHost func() string
	// Wake is called when a verdict of the pod changed, never with a lock held.
	Wake func(types.UID)
	// Event is called from many goroutines and must not block; nil: nobody asks.
	Event  func(Event)
	Logger *slog.Logger
}

// Set is all probes of the node.
type Set struct {
	cfg   Config
	begun time.Time
	load  sync.Once
	poke  chan struct{} // holds one: something is due earlier

	mu      sync.Mutex // never held over a call of a collaborator
	pods    map[types.UID]*watched
	times   times
	due     time.Time // what the loop waits for
	classes [2]class  // over the network, and in the container
	records map[string]pod.Health
	dropped []string // containers whose record has to go

	launches []launch // belongs to Run
	flights  sync.WaitGroup
}

// At most so many at a time, for as long as each takes at most so long.
const (
	netSlots, netLease   = 256, 100 * time.Millisecond
	execSlots, execLease = 8, 250 * time.Millisecond
)

// New returns the probes of a daemon that starts now.
func New(cfg Config) (*Set, error) {
	if cfg.Prober == nil || cfg.Records == nil || cfg.Wake == nil || cfg.Logger == nil {
		return nil, errors.New("configure probes: prober, records, wake and logger are needed")
	}
	if cfg.Event == nil {
		cfg.Event = func(Event) {}
	}
	return &Set{
		cfg: cfg, begun: time.Now(), poke: make(chan struct{}, 1),
		pods:    map[types.UID]*watched{},
		classes: [2]class{{slots: netSlots, lease: netLease}, {slots: execSlots, lease: execLease}},
	}, nil
}

// Watch implements worker.Probes.
func (s *Set) Watch(d pod.Desired, seen pod.RuntimeState) map[string]pod.Health {
	s.load.Do(s.loadRecords)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetEnded(seen)
	w := s.pods[seen.UID]
	if w == nil {
		if d.Pod == nil || !probed(&d.Pod.Spec) {
			return nil
		}
		w = &watched{runs: map[string]*run{}}
		s.pods[seen.UID] = w
	}
	if d.Pod != nil {
		w.pod = d.Pod
	}
	now, changed := time.Now(), false
	leaving := d.Wish == pod.WishAbsent || d.Rejected != nil
	for i := range seen.Containers {
		if c := &seen.Containers[i]; c.State == pod.ContainerRunning {
			changed = s.see(w, c, s.host(c, seen), leaving, now) || changed
		}
	}
	for id, r := range w.runs {
		if !r.seen {
			s.drop(r)
			delete(w.runs, id)
			changed = true
		}
		r.seen = false
	}
	if changed {
		w.publish()
	}
	if len(w.runs) == 0 {
		delete(s.pods, seen.UID)
	}
	s.wakeEarlier()
	return w.health
}

// forgetEnded drops the records of runs that ended while no daemon watched.
// Called with mu held.
func (s *Set) forgetEnded(seen pod.RuntimeState) {
	for i := range seen.Containers {
		c := &seen.Containers[i]
		if _, left := s.records[c.ID]; left && c.State != pod.ContainerRunning {
			delete(s.records, c.ID)
			s.dropped = append(s.dropped, c.ID)
			s.wake()
		}
	}
}

// probed tells whether any container of the pod has a probe.
func probed(spec *corev1.PodSpec) bool {
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			if c := &list[i]; c.StartupProbe != nil || c.ReadinessProbe != nil || c.LivenessProbe != nil {
				return true
			}
		}
	}
	return false
}

// host is the address at which the container's ports are.
func (s *Set) host(c *pod.Container, seen pod.RuntimeState) string {
	for i := range seen.Sandboxes {
		switch sandbox := &seen.Sandboxes[i]; {
		case sandbox.ID != c.SandboxID:
		case sandbox.HostNetwork:
			if s.cfg.NodeHost == nil {
				return ""
			}
			return s.cfg.NodeHost()
		case len(sandbox.Addrs) > 0:
			return sandbox.Addrs[0].String()
		}
	}
	return ""
}

// see takes a running container into account and tells whether it is new.
func (s *Set) see(w *watched, c *pod.Container, host string, leaving bool, now time.Time) bool {
	r := w.runs[c.ID]
	fresh := r == nil
	if fresh {
		spec := pod.ContainerOf(w.pod, c.Name)
		if spec == nil {
			return false
		}
		health, adopted := s.records[c.ID]
		if !adopted {
			health = unjudged(spec)
		}
		delete(s.records, c.ID)
		r = newRun(w, spec, c, health, c.Started.Before(s.begun))
		w.runs[c.ID] = r
	}
	if r.host != host {
		r.host = host
		for _, p := range r.probes {
			if p != nil {
				p.target = nil
			}
		}
	}
	r.seen, r.leaving = true, leaving
	s.arrange(r, now)
	return fresh
}

// arrange gives each probe of the run a time, or takes it from those that do not
// run now. Called with mu held.
func (s *Set) arrange(r *run, now time.Time) {
	for k, p := range r.probes {
		if p == nil || p.flying {
			continue
		}
		switch wanted := !r.gone && Kind(k).active(r.health, r.leaving); {
		case !wanted:
			s.times.remove(p)
		case p.index < 0:
			adopted := r.adopted && now.Sub(s.begun) < period(p.spec())
			p.due = now.Add(firstWait(p.kind, p.spec(), now.Sub(r.started), adopted, rand.Float64()))
			s.times.add(p)
		}
	}
}

// drop forgets a run that has ended. Called with mu held.
func (s *Set) drop(r *run) {
	r.gone = true
	s.arrange(r, time.Time{})
	if !r.saving {
		s.dropped = append(s.dropped, r.id)
		s.wake()
	}
}

// publish makes the verdicts of all runs what Watch returns.
func (w *watched) publish() {
	all := make(map[string]pod.Health, len(w.runs))
	for id, r := range w.runs {
		all[id] = r.health
	}
	w.health = all
}
