package worker

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// worker brings one pod to what is wanted of it. All fields below the mailbox
// belong to the goroutine of run.
type worker struct {
	set  *Set
	uid  types.UID
	name string // namespace/name, for logs and for serialising static pods

	mu      sync.Mutex
	desired pod.Desired
	asked   []string      // containers whose restart was asked for
	objects uint64        // counts the changes of what the pod refers to
	images  bool          // some came that nobody here has asked for
	poke    chan struct{} // holds one: something changed
	flights map[pod.Op]pod.Flight
	asking  *question
	ended   bool // no turn follows
	rests   bool // guarded by the set's mu: the node ends the pod, and all is done

	wanted   context.Context // ends when the pod is to go
	unwanted context.CancelFunc

	answered uint64 // of objects: the changes that were acted on
	shown    uint64 // of objects: the changes that volumes show
	prepared bool
	dirty    bool
	released bool // the cgroup of a pod that has ended is gone already
	running  map[pod.Op]bool
	failed   map[pod.Op]pod.Failure
	messages map[string]string // termination messages by container id
	again    map[string]bool   // runs, by container id, that are to be followed by another
	ending   map[string]bool   // runs, by container id, whose end was told
	backoffs map[string]time.Duration
	cuts     map[pod.Op]context.CancelFunc // hooks in flight
	since    atomic.Pointer[time.Time]     // when the pod was first prepared
	results  chan result
	status   corev1.PodStatus
	clock    clock
	log      *slog.Logger
}

// result is how an operation ended.
type result struct {
	action  pod.Action
	reason  string
	err     error
	took    time.Duration
	crashed bool
	objects uint64 // worker.objects when it began
}

// newWorker returns the worker of a pod. Of one with leftovers, what an earlier
// daemon left may include cgroup and directories.
func newWorker(s *Set, uid types.UID, name string, d pod.Desired, leftovers bool) *worker {
	w := &worker{
		set: s, uid: uid, name: name, desired: d,
		poke:     make(chan struct{}, 1),
		running:  map[pod.Op]bool{},
		failed:   map[pod.Op]pod.Failure{},
		messages: map[string]string{},
		again:    map[string]bool{},
		ending:   map[string]bool{},
		backoffs: map[string]time.Duration{},
		cuts:     map[pod.Op]context.CancelFunc{},
		results:  make(chan result),
		log:      s.cfg.Logger.With("pod", name, "podUID", uid),
	}
	w.wanted, w.unwanted = context.WithCancel(context.Background())
	w.dirty = leftovers
	return w
}

// offer hands over the latest wish, and wakes the worker if it is another. A pod
// that is on its way out stays so: the set starts it anew when it has ended.
func (w *worker) offer(d pod.Desired) {
	w.mu.Lock()
	before := w.desired
	if w.desired.Wish != pod.WishAbsent {
		if showsOther(w.desired.Pod, d.Pod) {
			w.objects++ // it may refer to others now
		}
		w.desired = d
	} else {
		if d.Grace != nil && (w.desired.Grace == nil || *d.Grace < *w.desired.Grace) {
			w.desired.Grace = d.Grace // only less time: the plan sees to it
		}
		if d.Ended != nil {
			w.desired.Ended = d.Ended
		}
	}
	if w.desired.Wish == pod.WishAbsent {
		w.unwanted()
	}
	changed := w.desired != before
	w.mu.Unlock()
	if changed {
		w.wake()
	}
}

// showsOther tells whether volumes may have to show something else for q than for p.
// Of an API server's pod the status comes back as it was told, which is no such thing.
func showsOther(p, q *corev1.Pod) bool {
	return p != q && (p == nil || q == nil || !maps.Equal(p.Labels, q.Labels) || !maps.Equal(p.Annotations, q.Annotations) ||
		!equality.Semantic.DeepEqual(&p.Spec, &q.Spec))
}

func (w *worker) wake() {
	select {
	case w.poke <- struct{}{}:
	default:
	}
}

func (w *worker) wish() pod.Desired {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.desired
}

// run works until the pod is gone (true) or the daemon ends (false). ops
// outlives ctx for a moment, so that a step under way may come to its end.
func (w *worker) run(ctx, ops context.Context) bool {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	defer w.hush()
	w.timeBegin(time.Now())
	for {
		now := time.Now()
		steps := w.decide(ctx, ops, now)
		if steps.Done {
			return true
		}
		wait := time.Hour
		if !steps.WakeAt.IsZero() {
			wait = max(steps.WakeAt.Sub(now), time.Millisecond)
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return false
		case <-w.poke:
		case r := <-w.results:
			w.finish(r)
			w.drain()
		case <-timer.C:
		}
	}
}

// panicWait is how long a pod rests whose plan or status ended in a panic.
const panicWait = 30 * time.Second

// decide makes one turn: look, plan, start the steps, tell the status. A panic
// in it is this pod's failure, as one in a step is.
func (w *worker) decide(ctx, ops context.Context, now time.Time) (steps pod.Steps) {
	defer func() {
		if p := recover(); p != nil {
			w.log.Error("contain a panic", "action", "plan", "panic", p, "stack", string(debug.Stack()))
			w.set.crashed()
			steps = pod.Steps{WakeAt: now.Add(panicWait)}
		}
	}()
	d := w.wish()
	w.answerObjects()
	o := w.observe(d)
	steps = pod.Plan(d, o, now)
	for _, a := range steps.Actions {
		w.start(ctx, ops, a, d)
		o.Running[a.Op()] = true
	}
	w.report(d, o, now)
	w.rest(d, steps)
	w.answer(d, o)
	return steps
}

// drain takes the results that are there already: one plan serves them all.
func (w *worker) drain() {
	for {
		select {
		case r := <-w.results:
			w.finish(r)
		default:
			return
		}
	}
}

func (w *worker) observe(d pod.Desired) pod.Observed {
	o := pod.Observed{
		RuntimeState: w.set.cfg.Runtime.Observe(w.uid),
		Prepared:     w.prepared,
		Dirty:        w.dirty,
		Released:     w.released,
		Again:        w.again,
		Backoff:      w.backoffs,
		Running:      map[pod.Op]bool{},
		Failed:       w.failed,
	}
	o.Stale = w.prepared && w.shown != w.answered && d.Pod != nil && pod.ShowsObjects(d.Pod)
	for op := range w.running {
		o.Running[op] = true
	}
	if since := w.since.Load(); since != nil {
		o.Since = *since
	}
	w.takeRestarts(o.RuntimeState)
	w.cutHooks(o)
	if err := w.set.cfg.Network.Ready(); err != nil {
		o.NetworkNotReady = err.Error()
	}
	o.Health = w.set.cfg.Probes.Watch(d, o.RuntimeState.Probeable())
	w.readMessages(d.Pod, o.Containers)
	return o
}

// readMessages fills in what each dead container left to be told, once.
func (w *worker) readMessages(p *corev1.Pod, all []pod.Container) {
	if p == nil {
		return
	}
	for i := range all {
		c := &all[i]
		if c.State != pod.ContainerExited {
			continue
		}
		message, known := w.messages[c.ID]
		if !known {
			if spec := pod.ContainerOf(p, c.Name); spec != nil {
				message = w.set.cfg.Files.TerminationMessage(p, spec, *c)
			}
			w.messages[c.ID] = message
		}
		switch { // what the runtime has to say comes first, as with kubelet
		case c.Message == "":
			c.Message = message
		case message != "":
			c.Message += ": " + message
		}
	}
}

// start runs the action in a goroutine of its own, which ends by its deadline
// and always delivers a result or sees the daemon end.
func (w *worker) start(ctx, ops context.Context, a pod.Action, d pod.Desired) {
	w.running[a.Op()] = true
	w.tellStart(a, d.Pod)
	if a.Kind == pod.Prepare {
		w.dirty = true
	}
	if a.Kind == pod.StopContainer || a.Kind == pod.ShortenStop {
		ops = ctx // it may wait for the whole grace period, which is kept on disk
	}
	ops = w.cuttable(ops, a)
	objects := w.answered
	w.begin(a.Op())
	w.set.ops.Go(func() {
		r := w.execute(ops, a, d)
		r.objects = objects
		select {
		case w.results <- r:
		case <-ctx.Done():
		}
	})
}

// execute contains a panic: it is this pod's failure, not the node's.
func (w *worker) execute(ctx context.Context, a pod.Action, d pod.Desired) (r result) {
	r.action = a
	defer func() {
		if p := recover(); p != nil {
			r.crashed, r.reason = true, pod.ReasonInternalError
			r.err = fmt.Errorf("%s %s: internal error: %v", a.Kind, a.Op().Object, p)
			w.log.Error("contain a panic", "action", a.Kind, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	begun := time.Now()
	r.reason, r.err = w.set.do(ctx, w, a, d)
	r.took = time.Since(begun)
	return r
}

// finish notes how an operation ended.
func (w *worker) finish(r result) {
	op := r.action.Op()
	w.timeStep(r.took)
	w.landed(op)
	delete(w.running, op)
	if cut := w.cuts[op]; cut != nil {
		cut()
		delete(w.cuts, op)
	}
	if r.err != nil {
		f := pod.Failure{Reason: r.reason, Message: r.err.Error(), Count: w.failed[op].Count + 1, At: time.Now()}
		known := w.failed[op].Away && away(r.err, r.reason) // it is tried every second
		if !known {
			w.tellFailure(r.action, w.wish().Pod, f)
		}
		if f.Absent = absent(r.err); r.objects == w.answered || !f.Absent && !f.LacksImage() {
			w.failed[op] = inRow(f, w.failed[op], r.err)
		} else {
			delete(w.failed, op) // what it lacked may have come meanwhile
		}
		level := slog.LevelWarn
		if known {
			level = slog.LevelDebug
		}
		w.log.Log(context.Background(), level, "retry later", "action", r.action.Kind, "container", r.action.Name, "reason", r.reason, "err", r.err)
		if r.crashed {
			w.set.crashed()
		}
		return
	}
	delete(w.failed, op)
	switch r.action.Kind {
	case pod.Prepare:
		w.prepared, w.released, w.shown = true, false, r.objects
	case pod.RefreshVolumes:
		w.shown = r.objects
	case pod.ReleaseCgroup:
		w.released = true
	case pod.Cleanup:
		w.prepared, w.dirty = false, false
	case pod.RemoveContainer:
		w.forget(r.action)
	case pod.StartContainer:
		delete(w.backoffs, r.action.Name)
	}
	w.log.Debug("did", "action", r.action.Kind, "container", r.action.Name, "took", r.took, "reason", r.action.Reason)
}

// forget drops what was kept of a run whose record is gone.
func (w *worker) forget(a pod.Action) {
	delete(w.messages, a.Container)
	delete(w.again, a.Container)
	delete(w.ending, a.Container)
	for _, kind := range []pod.ActionKind{pod.PostStart, pod.PreStop, pod.StopContainer, pod.ShortenStop} {
		delete(w.failed, pod.Op{Kind: kind, Object: a.Container})
	}
	if a.Backoff > 0 {
		w.backoffs[a.Name] = a.Backoff
	}
}

// report publishes the pod's status when it changed.
func (w *worker) report(d pod.Desired, o pod.Observed, now time.Time) {
	if d.Pod == nil {
		return
	}
	before := pod.Told(d, w.status)
	status := pod.Status(d, o, pod.Node{Addrs: w.set.cfg.Node.addrs()}, before, now)
	if reflect.DeepEqual(status, w.status) {
		return
	}
	w.tellStatus(d, &before, &status)
	w.timeStatus(&status, now)
	w.status = status
	w.set.board.put(w.uid, d, status)
}
