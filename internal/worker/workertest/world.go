// Package workertest holds a behavioural fake of everything that a pod set
// works with: runtime, images, cgroups, directories and network, as one World
// that remembers what exists and checks, at every step, what must never happen.
//
// A World outlives the daemons that work in it: Daemon returns the collaborators
// of one, and Kill ends their effect at once, in the middle of whatever call is
// under way, as SIGKILL does. Faults are drawn from a seed and the count of each
// call, so that they do not depend on how goroutines are scheduled.
//
// It is safe for concurrent use and meant for a testing/synctest bubble: calls
// take (virtual) time.
package workertest

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// Behaviour is what a container does once it runs.
type Behaviour struct {
	Runs       time.Duration // until it exits by itself; 0: for ever
	Code       int32
	IgnoreTERM bool
	// StartupTakes is when its startup probe succeeds; 0: it has none.
	StartupTakes time.Duration
	// FailsAfter is when its liveness probe has failed often enough; 0: never.
	FailsAfter time.Duration
	// Grace is the liveness probe's own grace period in seconds.
	Grace *int64
}

// Faults say what goes wrong.
type Faults struct {
	// FailNth makes the n-th call of all (from 1) fail; 0: none.
	FailNth int
	// Percent of the calls that fail, drawn by the seed.
	Percent int
	// SlowPercent of the calls that take up to a second.
	SlowPercent int
}

// World is the fake.
type World struct {
	seed   uint64
	faults Faults

	mu      sync.Mutex
	wake    func(types.UID)
	objects map[pod.ObjectRef]any // ConfigMaps and Secrets; nil for one that is gone

	objectChanged func(pod.ObjectRef)
	sandboxes     map[string]*sandbox
	containers    map[string]*container
	verdicts      map[string]pod.Health // what probes said, by container
	cgroups       map[types.UID]bool
	dirs          map[types.UID]time.Time // since when
	volumes       map[types.UID]string    // what they show of ConfigMaps
	links         map[string]bool
	addrs         map[netip.Addr]string // address -> sandbox
	behave        func(podName, container string, attempt uint32) Behaviour
	calls         int
	perCall       map[string]int
	nextID        int
	broken        []string
	attempts      map[string]uint32 // pod uid/container -> of its next run, by its logs
	started       map[string]int    // pod uid/container -> runs ever started
	log           []string
}

type sandbox struct {
	pod.Sandbox
	uid             types.UID
	namespace, name string
}

type container struct {
	pod.Container
	uid        types.UID
	behaviour  Behaviour
	target     string // id of the container whose processes it sees
	termed     bool   // got its stop signal
	hookFailed bool   // its postStart hook failed
	timer      *time.Timer
	epoch      int // bumped at each change of state, so that old timers do nothing
}

// New returns an empty world.
func New(seed uint64, f Faults, behave func(podName, container string, attempt uint32) Behaviour) *World {
	return &World{
		seed: seed, faults: f, behave: behave,
		sandboxes: map[string]*sandbox{}, containers: map[string]*container{}, verdicts: map[string]pod.Health{},
		cgroups: map[types.UID]bool{}, dirs: map[types.UID]time.Time{}, volumes: map[types.UID]string{}, links: map[string]bool{},
		addrs: map[netip.Addr]string{}, perCall: map[string]int{}, started: map[string]int{}, attempts: map[string]uint32{},
	}
}

// Calm ends all faults, so that the world can settle.
func (w *World) Calm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = Faults{}
}

// Calls tells how many calls were made so far.
func (w *World) Calls() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls
}

// Broken returns what should never have happened, in order.
func (w *World) Broken() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.broken)
}

// Log returns every effect, in order.
func (w *World) Log() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.log)
}

// Left lists everything that exists.
func (w *World) Left() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for id := range w.sandboxes {
		all = append(all, "sandbox "+id)
	}
	for id := range w.containers {
		all = append(all, "container "+id)
	}
	for id := range w.verdicts {
		all = append(all, "verdict on "+id)
	}
	for uid := range w.cgroups {
		all = append(all, "cgroup "+string(uid))
	}
	for uid := range w.dirs {
		all = append(all, "directory "+string(uid))
	}
	for uid := range w.volumes {
		all = append(all, "volumes "+string(uid))
	}
	for l := range w.links {
		all = append(all, "link "+l)
	}
	for a, s := range w.addrs {
		all = append(all, fmt.Sprintf("address %s of %s", a, s))
	}
	slices.Sort(all)
	return all
}

// LoseNetwork makes a ready sandbox of the pod unusable, as a deleted network
// namespace does.
func (w *World) LoseNetwork(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.sandboxes {
		if s.uid == uid && s.State == pod.SandboxReady {
			s.State, s.Reason = pod.SandboxNotReady, "NetworkLost"
			w.note("lose network of %s", s.ID)
		}
	}
	w.tell(uid)
}

// Wake tells the daemon there is that something of the pod changed.
func (w *World) Wake(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tell(uid)
}

// KillContainer ends a running container from outside.
func (w *World) KillContainer(uid types.UID, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.containers {
		if c.uid == uid && c.Name == name && c.State == pod.ContainerRunning {
			w.exit(c, 137)
		}
	}
}

func (w *World) breaks(format string, args ...any) {
	w.broken = append(w.broken, fmt.Sprintf(format, args...))
}

func (w *World) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

// tell wakes the daemon there is; called with mu held.
func (w *World) tell(uid types.UID) {
	if w.wake != nil {
		w.wake(uid)
	}
}

var errFault = errors.New("fault injected")

// fault decides about one call: how long it takes and whether it fails.
func (w *World) fault(call string) (time.Duration, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	w.perCall[call]++
	h := fnv.New64a()
	fmt.Fprintf(h, "%s#%d", call, w.perCall[call])
	r := rand.New(rand.NewPCG(w.seed, h.Sum64()))
	took := time.Duration(1+r.IntN(5)) * time.Millisecond
	if r.IntN(100) < w.faults.SlowPercent {
		took = time.Duration(r.IntN(1000)) * time.Millisecond
	}
	if w.calls == w.faults.FailNth || r.IntN(100) < w.faults.Percent {
		return took, fmt.Errorf("%s: %w", call, errFault)
	}
	return took, nil
}

func (w *World) id(kind string) string {
	w.nextID++
	return fmt.Sprintf("%s%d", kind, w.nextID)
}

// freeAddr takes the first free address.
func (w *World) freeAddr(sandbox string) netip.Addr {
	for a := netip.MustParseAddr("192.0.2.2"); ; a = a.Next() {
		if _, taken := w.addrs[a]; !taken {
			w.addrs[a] = sandbox
			return a
		}
	}
}

// exit ends a container; called with mu held.
func (w *World) exit(c *container, code int32) {
	c.epoch++
	if c.timer != nil {
		c.timer.Stop()
	}
	c.State, c.ExitCode, c.Finished = pod.ContainerExited, code, time.Now()
	w.note("exit %s %s %d", c.ID, c.Name, code)
	w.tell(c.uid)
}

// run starts a container; called with mu held.
func (w *World) run(c *container) {
	c.epoch++
	c.State, c.Started = pod.ContainerRunning, time.Now()
	w.started[string(c.uid)+"/"+c.Name]++
	w.attempts[string(c.uid)+"/"+c.Name] = c.Attempt + 1
	w.note("run %s %s attempt %d in %s", c.ID, c.Name, c.Attempt, c.SandboxID)
	for _, other := range w.containers {
		if other != c && other.uid == c.uid && other.Name == c.Name && other.State == pod.ContainerRunning {
			w.breaks("two runs of %s of pod %s at once: %s and %s", c.Name, c.uid, other.ID, c.ID)
		}
	}
	if !w.cgroups[c.uid] {
		w.breaks("%s of pod %s runs without the pod's cgroup", c.Name, c.uid)
	}
	if s := w.sandboxes[c.SandboxID]; s == nil || s.Stopped {
		w.breaks("%s of pod %s runs in a sandbox that is not there", c.Name, c.uid)
	}
	for _, d := range []time.Duration{c.behaviour.StartupTakes, c.behaviour.FailsAfter} {
		if d > 0 {
			time.AfterFunc(d, func() { w.Wake(c.uid) })
		}
	}
	if c.behaviour.Runs > 0 {
		epoch := c.epoch
		c.timer = time.AfterFunc(c.behaviour.Runs, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			if c.epoch == epoch {
				w.exit(c, c.behaviour.Code)
			}
		})
	}
}

// Started tells how often the container was ever started.
func (w *World) Started(uid types.UID, name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.started[string(uid)+"/"+name]
}
