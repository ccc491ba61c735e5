package status

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pulse"
)

// Pods is the pod set as far as it is told of. Watch calls tell with each pod that
// changed, with its whole status, beginning with all, and with those of which nothing
// is left. What it told last of a pod that is gone it tells again at the beginning of
// each Watch, as long as a source lists the pod.
type Pods interface {
	Watch(ctx context.Context, tell func(p *corev1.Pod, gone bool) error) error
}

// API is what the API server is asked. Errors are those of apimachinery's
// api/errors where it answered.
type API interface {
	Get(ctx context.Context, name types.NamespacedName) (*corev1.Pod, error)
	Create(ctx context.Context, p *corev1.Pod) (*corev1.Pod, error)
	PatchStatus(ctx context.Context, name types.NamespacedName, patch []byte) (*corev1.Pod, error)
	// Delete removes the pod at once, if it has this UID.
	Delete(ctx context.Context, name types.NamespacedName, uid types.UID) error
}

// Config is what a writer works with; all but Yield, AtOnce, Rate and Logger must be set.
type Config struct {
	Pods Pods
	API  API
	// Node tells of the Node object that mirror pods belong to. It must not block.
	Node func() Node
	// Yield, where there is one, is told until when what somebody waits for is likely to
	// be written: what nobody waits for had better wait, too. It must not block.
	Yield func(until time.Time)
	// AtOnce bounds the requests that are under way; 0 means 16.
	AtOnce int
	// Rate bounds the requests by time; nil: nothing does. What a request has to wait
	// for it is none of the time that an answer may take.
	Rate   *rate.Limiter
	Logger *slog.Logger
}

// Snapshot is all that the API server has for this node at one moment, whole, also
// of pods that are being deleted. Status must not be trimmed.
type Snapshot struct {
	Pods    []*corev1.Pod
	Mirrors []*corev1.Pod
	// Synced: the API server was read. Until then nothing is written.
	Synced bool
}

// Static is all that the manifest directory wants.
type Static struct {
	Pods []*corev1.Pod
	// Trusted: a static pod that is not listed is not wanted, so its mirror may go.
	Trusted bool
}

// Writer writes what the API server is told of pods.
type Writer struct {
	cfg  Config
	poke chan struct{} // holds one

	pulse pulse.Pulse

	mu       sync.Mutex // never held over a call
	changes  map[types.UID]change
	snapshot *Snapshot
	static   *Static
	node     bool // it may be another
	untold   map[key]Untold

	// All below belongs to the goroutine of Run.
	records map[key]*record
	listed  map[types.NamespacedName]bool // static pods
	trusted bool
	synced  bool
	outage  outage
	flying  int
	busy    time.Time // until then there is likely to be something of haste
	done    chan result
}

// change is what the pod set told last of a pod.
type change struct {
	pod  *corev1.Pod
	gone bool
}

// New returns a writer that does nothing until Run.
func New(cfg Config) (*Writer, error) {
	if cfg.Pods == nil || cfg.API == nil || cfg.Node == nil {
		return nil, errors.New("configure the status writer: pods, API and node are needed")
	}
	if cfg.Yield == nil {
		cfg.Yield = func(time.Time) {}
	}
	if cfg.AtOnce == 0 {
		cfg.AtOnce = 16
	}
	if cfg.Rate == nil {
		cfg.Rate = rate.NewLimiter(rate.Inf, 0)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Writer{
		cfg: cfg, poke: make(chan struct{}, 1), changes: map[types.UID]change{},
		records: map[key]*record{}, done: make(chan result), untold: map[key]Untold{},
	}, nil
}

// Offer hands over what the API server has; the latest counts.
func (w *Writer) Offer(s Snapshot) {
	w.mu.Lock()
	w.snapshot = &s
	w.mu.Unlock()
	w.wake()
}

// OfferStatic hands over what the manifest directory wants; the latest counts.
func (w *Writer) OfferStatic(s Static) {
	w.mu.Lock()
	w.static = &s
	w.mu.Unlock()
	w.wake()
}

// NodeChanged tells that Node would answer otherwise than before.
func (w *Writer) NodeChanged() {
	w.mu.Lock()
	w.node = true
	w.mu.Unlock()
	w.wake()
}

// tell takes a change from the pod set.
func (w *Writer) tell(p *corev1.Pod, gone bool) error {
	w.mu.Lock()
	w.changes[p.UID] = change{p, gone}
	w.mu.Unlock()
	w.wake()
	return nil
}

func (w *Writer) wake() {
	select {
	case w.poke <- struct{}{}:
	default:
	}
}

// recheck is how often what was believed or given up for a time is looked at again.
const recheck = time.Minute

// Run writes until ctx ends. What is not written then the next daemon writes, since
// it compares anew.
func (w *Writer) Run(ctx context.Context) error {
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = w.cfg.Pods.Watch(ctx, w.tell) }) // ends with ctx
	timer, all := time.NewTimer(time.Hour), time.NewTicker(recheck)
	defer timer.Stop()
	defer all.Stop()
	defer w.pulse.Rest()
	for {
		w.pulse.Beat()
		now := time.Now()
		w.take(now)
		wait := time.Hour
		if next := w.advance(ctx, &tasks, now); !next.IsZero() {
			wait = max(next.Sub(now), time.Millisecond)
		}
		timer.Reset(wait)
		w.pulse.Rest()
		select {
		case <-ctx.Done():
			tasks.Wait()
			return nil
		case <-w.poke:
		case <-timer.C:
		case r := <-w.done:
			w.pulse.Beat()
			w.finish(r, time.Now())
		case <-all.C:
			w.pulse.Beat()
			for _, r := range w.records {
				r.stale = r.stale || !r.skipUntil.IsZero()
				r.see(r.source, time.Now())
			}
		}
	}
}

// Progress is when the loop last made progress. Requests are under way beside it.
func (w *Writer) Progress() time.Time { return w.pulse.Progress() }

// take brings the records up to date with what was handed over.
func (w *Writer) take(now time.Time) {
	w.mu.Lock()
	changes, snapshot, static, node := w.changes, w.snapshot, w.static, w.node
	w.changes, w.snapshot, w.static, w.node = map[types.UID]change{}, nil, nil, false
	w.mu.Unlock()
	for _, gone := range []bool{true, false} { // the end of one makes room for another of its name
		for _, c := range changes {
			if c.gone == gone {
				w.told(c)
			}
		}
	}
	if snapshot != nil && snapshot.Synced {
		w.synced = true
		w.seen(snapshot, now)
	}
	if static != nil {
		w.trusted = static.Trusted
		w.listed = make(map[types.NamespacedName]bool, len(static.Pods))
		for _, p := range static.Pods {
			w.listed[nameOf(p)] = true
		}
	}
	if static != nil || node {
		for k, r := range w.records {
			r.stale = r.stale || k.uid == ""
		}
	}
	for k, r := range w.records {
		if snapshot != nil && w.synced && r.idle() { // by a snapshot of after its end
			delete(w.records, k)
			w.mu.Lock()
			delete(w.untold, k)
			w.mu.Unlock()
		}
	}
}

// told notes what the pod set tells of a pod.
func (w *Writer) told(c change) {
	k := key{uid: c.pod.UID}
	if isStatic(c.pod) {
		k = key{name: nameOf(c.pod)}
	}
	r := w.record(k)
	if c.gone && r.told != nil && r.told.UID != c.pod.UID {
		return // another static pod has the name
	}
	r.told, r.gone, r.stale = c.pod, c.gone, true
}

// seen notes what the API server has.
func (w *Writer) seen(s *Snapshot, now time.Time) {
	has := make(map[key]*corev1.Pod, len(s.Pods)+len(s.Mirrors))
	for _, p := range s.Pods {
		has[key{uid: p.UID}] = p
	}
	for _, p := range s.Mirrors {
		has[key{name: nameOf(p)}] = p
	}
	for k, p := range has {
		w.record(k).see(p, now)
	}
	for k, r := range w.records {
		if has[k] == nil {
			r.see(nil, now)
		}
	}
}

func (w *Writer) record(k key) *record {
	r := w.records[k]
	if r == nil {
		r = &record{key: k, stale: true}
		w.records[k] = r
	}
	return r
}

func nameOf(p *corev1.Pod) types.NamespacedName {
	return types.NamespacedName{Namespace: p.Namespace, Name: p.Name}
}

// advance starts what is due and tells when more will be; zero: not before something
// is told.
func (w *Writer) advance(ctx context.Context, tasks *sync.WaitGroup, now time.Time) (next time.Time) {
	if !w.synced {
		return next
	}
	most, from := w.outage.room(w.cfg.AtOnce)
	var due []*record
	for _, r := range w.records {
		if r.flying || !w.planned(r, now) {
			continue
		}
		at := r.due(now, w.busy)
		if from.After(at) {
			at = from
		}
		if !at.After(now) {
			due = append(due, r)
		} else if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	slices.SortFunc(due, func(x, y *record) int {
		if x.next.haste != y.next.haste {
			return cmp.Compare(y.rank(), x.rank())
		}
		return x.since.Compare(y.since)
	})
	for _, r := range due {
		if w.flying >= most {
			break // the end of one wakes us
		}
		w.start(ctx, tasks, r, now)
	}
	return next
}

// rank orders what is due.
func (r *record) rank() int {
	if r.next.haste {
		return 1
	}
	return 0
}

// planned makes the record's next step up to date and tells whether there is one.
func (w *Writer) planned(r *record, now time.Time) bool {
	if r.stale {
		r.stale = false
		r.next = r.plan(facts{node: w.cfg.Node(), unwanted: w.unwanted(r)}, now)
		if r.next.step == none {
			r.since = time.Time{}
			w.rested(r)
		} else if r.since.IsZero() {
			r.since = now
		}
	}
	return r.next.step != none
}

// rested forgets the trouble of a record that has nothing to ask any more; what was
// refused for now is asked again.
func (w *Writer) rested(r *record) {
	if r.said == "" || !r.skipUntil.IsZero() {
		return
	}
	r.said = ""
	w.mu.Lock()
	delete(w.untold, r.key)
	w.mu.Unlock()
}

// unwanted tells whether no static pod of the record's name is to come: none is
// listed, and either the last one has ended or all are listed that there are.
func (w *Writer) unwanted(r *record) bool {
	return r.key.uid == "" && !w.listed[r.key.name] && (w.trusted || r.gone)
}
