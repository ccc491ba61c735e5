package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// Config is what a pod set works with; every field but EnvFiles, Services,
// Events, Figures, Node and Logger must be set.
type Config struct {
	Runtime    Runtime
	Sandboxes  Sandboxes
	Containers Containers
	Stops      Stops
	Hooks      Hooks
	Images     Images
	Cgroups    Cgroups
	Network    Network
	Dirs       Dirs
	Files      Files
	Volumes    Volumes
	Links      Links
	Probes     Probes
	Objects    Objects
	// EnvFiles may be nil: then no variable comes from a file.
	EnvFiles EnvFiles
	// Services may be nil: then containers are told of none.
	Services Services
	// Events may be nil: then nobody is told what happens to pods.
	Events Events
	// Figures may be nil: then nobody is told how long things take.
	Figures Figures

	// Sources names the sources that must have synced before any pod that none
	// of them lists is removed.
	Sources []string
	// Stray, when set, removes what belongs to no pod for which keep is true:
	// cgroups, directories, addresses. It is called once all sources synced.
	Stray func(ctx context.Context, keep func(types.UID) bool) error
	Node  Node
	// AtOnce bounds how many pods are started or ended at a time; 0 means four a
	// CPU, at most 8.
	AtOnce int
	Logger *slog.Logger
}

// Snapshot is everything that one source wants at a time.
type Snapshot struct {
	Source string
	Pods   []pod.Desired
	// Synced: the source has delivered at all.
	Synced bool
	// Trusted: what the source does not list is not wanted, even if it never
	// listed it in this process.
	Trusted bool
}

// Set is the pod set of the node.
type Set struct {
	cfg   Config
	board *board
	slots *slots

	// mu is never held over a call of a collaborator: each may call Wake with a
	// lock of its own held. Run's goroutine alone changes workers.
	mu        sync.Mutex
	snapshots map[string]Snapshot
	offered   time.Time // when the first of the snapshots came that nobody looked at yet
	waiting   map[types.UID]time.Time
	workers   map[types.UID]*worker
	endings   map[types.UID]*pod.Ending
	rested    chan struct{} // closed and replaced when the end of a pod is through
	poke      chan struct{}

	ops      sync.WaitGroup // operations in flight
	crashes  chan time.Time
	progress atomic.Int64 // unix nanoseconds of the last turn of the loop
	swept    bool
	sweep    chan error // the end of a running sweep
}

// New returns a pod set that does nothing until Run.
func New(cfg Config) (*Set, error) {
	if cfg.Runtime == nil || cfg.Sandboxes == nil || cfg.Containers == nil || cfg.Stops == nil || cfg.Hooks == nil || cfg.Images == nil ||
		cfg.Cgroups == nil || cfg.Network == nil || cfg.Dirs == nil || cfg.Files == nil || cfg.Links == nil || cfg.Objects == nil ||
		cfg.Volumes == nil {
		return nil, errors.New("configure the pod set: a collaborator is missing")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.AtOnce == 0 {
		cfg.AtOnce = min(4*runtime.NumCPU(), 8)
	}
	return &Set{
		cfg: cfg, board: newBoard(), slots: newSlots(cfg.AtOnce, slotLease),
		snapshots: map[string]Snapshot{}, workers: map[types.UID]*worker{}, rested: make(chan struct{}),
		poke: make(chan struct{}, 1), crashes: make(chan time.Time, maxCrashes),
	}, nil
}

// slotLease is how long a start may hold up the others at least.
const slotLease = 5 * time.Second

// A pod's panic is contained; so many within so long are not one pod's any more
// and end the process, which the service manager starts anew.
const (
	maxCrashes  = 3
	crashWindow = 10 * time.Minute
)

// Offer hands over the latest snapshot of a source. It never blocks.
func (s *Set) Offer(snap Snapshot) {
	s.mu.Lock()
	s.snapshots[snap.Source] = snap
	if s.offered.IsZero() {
		s.offered = time.Now()
	}
	s.mu.Unlock()
	s.wakeSet()
}

// Wake tells that the runtime's view of the pod changed by itself. It never
// blocks.
func (s *Set) Wake(uid types.UID) {
	s.mu.Lock()
	w := s.workers[uid]
	s.mu.Unlock()
	if w == nil {
		s.wakeSet() // an orphan, or one that is about to be adopted
		return
	}
	w.wake()
}

// WakeAll makes every worker plan again, after something changed for all pods:
// the network became ready.
func (s *Set) WakeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.workers {
		w.wake()
	}
}

// ObjectChanged tells that a ConfigMap or Secret came, went or changed: the pods
// that refer to it look again, and what failed for want of it is tried at once.
// It never blocks.
func (s *Set) ObjectChanged(ref pod.ObjectRef) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.workers {
		w.objectChanged(ref)
	}
}

func (s *Set) wakeSet() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// Pods returns every pod with its latest status, by namespace and name. They
// must not be changed.
func (s *Set) Pods() []*corev1.Pod { return s.board.list() }

// Watch calls tell with each pod whose status changed, beginning with all, and
// with those that are gone, as they last were; one that is gone is told again to who
// begins to watch while a source still lists it. It ends with ctx or with tell's error.
func (s *Set) Watch(ctx context.Context, tell func(p *corev1.Pod, gone bool) error) error {
	return s.board.watch(ctx, tell)
}

// Progress is when the loop last turned; it turns at least every heartbeat.
func (s *Set) Progress() time.Time { return time.Unix(0, s.progress.Load()) }

// heartbeat is the longest that the loop rests, so that a watchdog can tell
// rest from a hang.
const heartbeat = 10 * time.Second

// resync is how often every pod is planned anew although nothing was told
// (kubelet's syncFrequency).
const resync = time.Minute

// drainTime is how long operations in flight may go on when the daemon ends.
const drainTime = 5 * time.Second

// Run works until ctx ends, which detaches: no container is touched.
func (s *Set) Run(ctx context.Context) error {
	beat, all := time.NewTicker(heartbeat), time.NewTicker(resync)
	defer beat.Stop()
	defer all.Stop()
	if !s.awaitRuntime(ctx, beat.C) { // adopt before acting
		return nil
	}
	opctx, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	ended := make(chan *worker)
	var workers sync.WaitGroup
	for {
		s.progress.Store(time.Now().UnixNano())
		for _, w := range s.reconcile() {
			workers.Go(func() {
				if w.run(ctx, opctx) {
					select {
					case ended <- w:
					case <-ctx.Done():
					}
				}
			})
		}
		s.startSweep(ctx)
		select {
		case <-ctx.Done():
			workers.Wait()
			s.drain(cut)
			return nil
		case w := <-ended:
			s.forget(w)
		case err := <-s.sweep:
			s.sweepEnded(err)
		case <-s.poke:
		case <-beat.C:
		case <-all.C:
			s.WakeAll()
		}
		if err := s.tooManyCrashes(); err != nil {
			cut()
			return err
		}
	}
}

// drain lets operations in flight come to an end, for a bounded time.
func (s *Set) drain(cut context.CancelFunc) {
	timer := time.AfterFunc(drainTime, cut)
	defer timer.Stop()
	s.ops.Wait()
}

// forget drops a worker whose pod is gone. A pod of the same name, or the same
// pod wanted again, may start now.
func (s *Set) forget(w *worker) {
	s.mu.Lock()
	delete(s.workers, w.uid)
	s.tellRested()
	wanted, _, _ := s.wanted()
	s.mu.Unlock()
	_, listed := wanted[w.uid]
	s.board.remove(w.uid, listed)
	w.log.Info("pod is gone")
}

// reconcile hands each worker its wish and returns the workers to start.
func (s *Set) reconcile() []*worker {
	strangers := s.strangers()
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted, synced, trusted := s.wanted()
	var start []*worker
	names := map[string]bool{}
	for uid, w := range s.workers {
		names[w.name] = true
		if d, ok := wanted[uid]; ok {
			w.offer(d)
		} else if synced {
			w.offer(pod.Desired{Wish: pod.WishAbsent, Pod: w.wish().Pod})
		}
	}
	adopt := func(uid types.UID, name string, d pod.Desired, leftovers bool) *worker {
		w := newWorker(s, uid, name, d, leftovers)
		s.workers[uid] = w
		names[name] = true
		start = append(start, w)
		return w
	}
	seen := s.firstSeen(wanted)
	// What still runs comes first: a pod of the same name waits for its end.
	for _, state := range strangers {
		if d, ok := wanted[state.UID]; ok {
			adopt(state.UID, fullName(d.Pod), d, !state.Empty())
		} else if trusted && !state.Empty() {
			adopt(state.UID, state.Namespace+"/"+state.Name, pod.Desired{Wish: pod.WishAbsent}, true)
		}
	}
	s.board.unlist(func(uid types.UID) bool { _, listed := wanted[uid]; return listed })
	for uid, d := range wanted {
		name, leaves := fullName(d.Pod), d.Wish == pod.WishAbsent
		if leaves && s.board.hasEnded(uid) {
			continue // its source has not learnt yet that it is gone
		}
		if s.workers[uid] == nil && !names[name] {
			// Of one that is to go, an earlier daemon may have left directories.
			adopt(uid, name, d, leaves).clock.see(seen[uid], leaves)
		}
	}
	return start
}

// strangers are the pods in the runtime that have no worker.
func (s *Set) strangers() []pod.RuntimeState {
	var all []pod.RuntimeState
	for _, uid := range s.cfg.Runtime.Pods() {
		if s.workers[uid] == nil {
			all = append(all, s.cfg.Runtime.Observe(uid))
		}
	}
	return all
}

// wanted merges the snapshots; of two pods with one UID the first source's
// stands. It tells whether every source has synced, and whether all of them may
// be trusted about pods that they never listed.
func (s *Set) wanted() (all map[types.UID]pod.Desired, synced, trusted bool) {
	all = map[types.UID]pod.Desired{}
	synced, trusted = true, true
	for _, name := range s.cfg.Sources {
		snap := s.snapshots[name]
		synced = synced && snap.Synced
		trusted = trusted && snap.Synced && snap.Trusted
		for _, d := range snap.Pods {
			if _, taken := all[d.Pod.UID]; !taken {
				d.Ended = s.endings[d.Pod.UID]
				all[d.Pod.UID] = d
			}
		}
	}
	return all, synced, trusted
}

// startSweep removes, once all sources synced, what belongs to no pod.
func (s *Set) startSweep(ctx context.Context) {
	s.mu.Lock()
	_, _, trusted := s.wanted()
	s.mu.Unlock()
	if s.swept || !trusted || s.cfg.Stray == nil {
		return
	}
	s.swept = true
	done := make(chan error, 1)
	s.sweep = done
	s.ops.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		done <- s.cfg.Stray(bounded, s.known)
	})
}

// known tells whether the pod has a worker or is wanted.
func (s *Set) known(uid types.UID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.workers[uid] != nil {
		return true
	}
	wanted, _, _ := s.wanted()
	_, ok := wanted[uid]
	return ok
}

func (s *Set) sweepEnded(err error) {
	s.sweep = nil
	if err != nil {
		s.swept = false // the next beat tries again
		s.cfg.Logger.Warn("remove what belongs to no pod", "err", err)
	}
}

func (s *Set) crashed() {
	select {
	case s.crashes <- time.Now():
	default:
	}
	s.wakeSet()
}

// tooManyCrashes tells whether panics come so often that the process must end.
func (s *Set) tooManyCrashes() error {
	if len(s.crashes) < maxCrashes {
		return nil
	}
	if first := <-s.crashes; time.Since(first) < crashWindow {
		return fmt.Errorf("run pods: %d internal errors within %s", maxCrashes, crashWindow)
	}
	return nil
}

func fullName(p *corev1.Pod) string { return p.Namespace + "/" + p.Name }
