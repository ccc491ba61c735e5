package worker

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// board holds the latest status of every pod and tells watchers of changes. Its
// entries are immutable: a change puts a new one.
type board struct {
	mu       sync.Mutex
	pods     map[types.UID]*corev1.Pod
	ended    map[types.UID]*corev1.Pod // gone, but a source still lists them
	watchers map[*watcher]struct{}
	seq      uint64
}

// watcher collects the pods that changed since it last looked; of several
// changes of one pod it sees the latest.
type watcher struct {
	changed map[types.UID][]change // at most that a pod is gone and that it is back
	ready   chan struct{}          // holds one
}

// change is a pod as it is now, or as it last was.
type change struct {
	pod  *corev1.Pod
	gone bool
	seq  uint64 // changes are told in the order in which they came
}

func newBoard() *board {
	return &board{pods: map[types.UID]*corev1.Pod{}, ended: map[types.UID]*corev1.Pod{}, watchers: map[*watcher]struct{}{}}
}

func (b *board) put(uid types.UID, d pod.Desired, status corev1.PodStatus) {
	p := *d.Pod // shallow: spec and metadata are never changed
	p.Status = status
	if d.Wish == pod.WishAbsent && p.DeletionGracePeriodSeconds == nil {
		p.DeletionGracePeriodSeconds = p.Spec.TerminationGracePeriodSeconds
	}
	b.set(uid, &p)
}

// remove takes a pod off the board, which an orphan never was on. listed tells that a
// source still lists it: whoever is to tell that source may come later.
func (b *board) remove(uid types.UID, listed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.pods[uid]; p != nil {
		delete(b.pods, uid)
		if listed {
			b.ended[uid] = p
		}
		b.tell(uid, change{pod: p, gone: true})
	}
}

// hasEnded tells whether nothing is left of a pod that a source listed then.
func (b *board) hasEnded(uid types.UID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ended[uid] != nil
}

// unlist forgets those that have ended and that no source lists any more.
func (b *board) unlist(listed func(types.UID) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for uid := range b.ended {
		if !listed(uid) {
			delete(b.ended, uid)
		}
	}
}

func (b *board) set(uid types.UID, p *corev1.Pod) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pods[uid] = p
	delete(b.ended, uid)
	b.tell(uid, change{pod: p})
}

func (b *board) tell(uid types.UID, c change) {
	b.seq++
	c.seq = b.seq
	for w := range b.watchers {
		if pending := w.changed[uid]; len(pending) == 1 && pending[0].gone && !c.gone {
			w.changed[uid] = append(pending, c) // another life of the same pod
		} else {
			w.changed[uid] = append(pending[:max(0, len(pending)-1)], c)
		}
		select {
		case w.ready <- struct{}{}:
		default:
		}
	}
}

// list returns every pod by namespace and name. The pods must not be changed.
func (b *board) list() []*corev1.Pod {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]*corev1.Pod, 0, len(b.pods))
	for _, p := range b.pods {
		all = append(all, p)
	}
	slices.SortFunc(all, func(x, y *corev1.Pod) int {
		return strings.Compare(x.Namespace+"/"+x.Name, y.Namespace+"/"+y.Name)
	})
	return all
}

// watch calls tell with each change until ctx ends or tell fails. It starts with
// every pod there is, and with those that have ended while a source still lists them.
func (b *board) watch(ctx context.Context, tell func(p *corev1.Pod, gone bool) error) error {
	w := &watcher{changed: map[types.UID][]change{}, ready: make(chan struct{}, 1)}
	b.mu.Lock()
	for uid, p := range b.ended {
		w.changed[uid] = []change{{pod: p, gone: true}}
	}
	for uid, p := range b.pods {
		w.changed[uid] = []change{{pod: p}}
	}
	w.ready <- struct{}{}
	b.watchers[w] = struct{}{}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.watchers, w)
		b.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.ready:
		}
		b.mu.Lock()
		batch := w.changed
		w.changed = map[types.UID][]change{}
		b.mu.Unlock()
		for _, c := range inOrder(batch) {
			if err := tell(c.pod, c.gone); err != nil {
				return err
			}
		}
	}
}

// inOrder lists the changes as they came: that a pod is gone comes before what
// its end made room for.
func inOrder(batch map[types.UID][]change) []change {
	var all []change
	for _, changes := range batch {
		all = append(all, changes...)
	}
	slices.SortFunc(all, func(x, y change) int { return cmp.Compare(x.seq, y.seq) })
	return all
}
