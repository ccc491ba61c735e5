// Package soak owns the long test: pods come and go while faults are injected at
// random, and at the end the node must be as it was. "make soak TIME=24h" runs it
// long; "make test" runs it for the time of a cup of tea.
package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// slots is how many pods there are at most; each slot is one manifest.
const slots = 12

type soak struct {
	t       *testing.T
	bed     *bed.Bed
	agent   *bed.AgentProcess
	dice    *rand.Rand
	there   [slots]bool
	history *bed.History
	faults  map[string]int
	puts    int
}

// TestSoak churns pods for the time that SOAK says (default 20 s), with a fault
// each few seconds, and then looks for what was left.
func TestSoak(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("SOAK"))
	if err != nil {
		d = 20 * time.Second
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	ctx, cancel := context.WithTimeout(context.Background(), d+5*time.Minute)
	defer cancel()
	s := &soak{t: t, dice: rand.New(rand.NewPCG(seed, 0)), history: bed.NewHistory(), faults: map[string]int{}}
	s.bed = bed.Containerd(t, bed.Options{Private: true})
	if err := s.bed.Import(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.bed.Plant(ctx); err != nil {
		t.Fatal(err)
	}
	s.agent = bed.Agent(t, s.bed, bed.AgentOptions{})
	s.warm(ctx)
	before, err := s.bed.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	fds := s.agent.FDs()
	watching, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() { defer close(watched); s.watch(watching) }()
	s.churn(ctx, d)
	s.settle(ctx)
	stop()
	<-watched
	s.judge(ctx, before, fds)
}

// warm runs one pod, so that what is made once for all pods is there.
func (s *soak) warm(ctx context.Context) {
	s.put(0)
	if err := s.agent.WaitReadyPods(ctx, 1); err != nil {
		s.t.Fatal(err)
	}
	s.remove(0)
	if err := s.agent.WaitGone(ctx); err != nil {
		s.t.Fatal(err)
	}
}

// watch gives all changes to the history; a daemon that is away is asked again.
func (s *soak) watch(ctx context.Context) {
	for ctx.Err() == nil {
		for c, err := range s.agent.Watch(ctx) {
			if err != nil {
				break
			}
			s.history.See(c)
		}
		wait(ctx, 20*time.Millisecond)
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// churn adds or removes a pod ten times a second; each few seconds comes a fault.
func (s *soak) churn(ctx context.Context, d time.Duration) {
	// Long runs get a fault each minute, short ones some all the same.
	every := min(time.Minute, max(3*time.Second, d/20))
	next := time.Now().Add(every)
	for end := time.Now().Add(d); time.Now().Before(end) && ctx.Err() == nil; wait(ctx, 100*time.Millisecond) {
		if i := s.dice.IntN(slots); s.there[i] {
			s.remove(i)
		} else {
			s.put(i)
		}
		if time.Now().After(next) {
			next = time.Now().Add(every)
			s.fault(ctx)
		}
	}
}

var specs = []string{
	"  containers:\n  - {name: c, image: IMAGE, command: [/podtool, sleep, forever]}\n",
	"  restartPolicy: Never\n  containers:\n  - {name: c, image: IMAGE, command: [/podtool, exit, '7', 300ms]}\n",
	"  restartPolicy: OnFailure\n  containers:\n  - {name: c, image: IMAGE, command: [/podtool, print, '50', 10ms]}\n",
	"  containers:\n  - {name: c, image: IMAGE, command: [/podtool, exit, '1']}\n",
	"  hostNetwork: true\n  containers:\n  - {name: a, image: IMAGE, command: [/podtool, sleep, forever]}\n  - {name: b, image: IMAGE, command: [/podtool, deaf]}\n",
	"  initContainers:\n  - {name: i, image: IMAGE, command: [/podtool, print, '3']}\n  containers:\n  - {name: c, image: IMAGE, command: [/podtool, fork, '3', sleep, forever]}\n",
}

func name(i int) string { return fmt.Sprintf("soak-%d", i) }

func (s *soak) put(i int) {
	spec := specs[s.dice.IntN(len(specs))]
	if i == 0 {
		spec = specs[0]
	}
	// A label makes each put another pod with a UID of its own: a watcher that was
	// away cannot mistake it for the one before.
	s.puts++
	meta := fmt.Sprintf("{name: %s, labels: {put: p%d}}", name(i), s.puts)
	text := "apiVersion: v1\nkind: Pod\nmetadata: " + meta + "\nspec:\n  terminationGracePeriodSeconds: 2\n" + spec
	if err := s.agent.WriteManifest(name(i), strings.ReplaceAll(text, "IMAGE", image.Example)); err != nil {
		s.t.Fatal(err)
	}
	s.there[i] = true
}

func (s *soak) remove(i int) {
	if err := s.agent.RemoveManifest(name(i)); err != nil {
		s.t.Fatal(err)
	}
	s.there[i] = false
}

// settle removes all pods and lets the daemon finish.
func (s *soak) settle(ctx context.Context) {
	for i := range slots {
		if s.there[i] {
			s.remove(i)
		}
	}
	bounded, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := s.agent.WaitGone(bounded); err != nil {
		s.t.Error(err)
	}
}

func (s *soak) judge(ctx context.Context, before bed.Snapshot, fds int) {
	s.t.Logf("faults: %v", s.faults)
	bounded, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := s.bed.WaitSame(bounded, before); err != nil {
		s.t.Error(err)
	}
	for _, line := range s.history.Illegal() {
		s.t.Error(line)
	}
	const slack = 8 // connections in flight
	if now := s.agent.FDs(); now > fds+slack {
		s.t.Errorf("the daemon has %d open files, %d before", now, fds)
	}
	if err := s.agent.Signal(0); err != nil {
		s.t.Errorf("the daemon is gone: %v", err)
	}
}
