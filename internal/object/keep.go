package object

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// Keep says which pods of the API server are on the node. What they refer to is
// read, and kept up to date, until no pod does any more; tokens end with their
// pod. The pods are not changed, here or by the caller. Pods that have ended need
// not be listed, and are passed over.
func (s *Store) Keep(pods []*corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	listed := make(map[types.UID]bool, len(pods))
	for _, p := range pods {
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		listed[p.UID] = true
		s.keep(p)
	}
	for uid, k := range s.pods {
		if !listed[uid] {
			s.drop(uid, k)
		}
	}
}

// keep takes one pod, which may be here in an earlier form. Called with mu held.
func (s *Store) keep(p *corev1.Pod) {
	k := s.pods[p.UID]
	if k == nil {
		k = &kept{tokens: map[pod.TokenWish]*token{}}
		s.pods[p.UID] = k
	}
	if k.pod == p {
		return
	}
	k.pod = p
	before := k.refs
	k.refs = pod.References(p)
	for _, ref := range k.refs {
		if !slices.Contains(before, ref) && ref.Kind != pod.TokenKind {
			s.use(ref)
		}
	}
	for _, ref := range before {
		if !slices.Contains(k.refs, ref) {
			s.unuse(ref)
		}
	}
	for _, w := range pod.Tokens(p) {
		if k.tokens[w] == nil {
			k.tokens[w] = s.newToken(p, w)
			s.ask(&k.tokens[w].asking)
		}
	}
}

// drop forgets a pod. Called with mu held.
func (s *Store) drop(uid types.UID, k *kept) {
	delete(s.pods, uid)
	for _, ref := range k.refs {
		s.unuse(ref)
	}
	for _, t := range k.tokens {
		t.end()
	}
}

// entry is one object. All is guarded by the Store's mu.
type entry struct {
	ref   pod.ObjectRef
	users int
	first chan struct{} // closed when the first attempt to read it has ended
	known bool          // the API server has told, and this is what it told:
	value any           // *corev1.ConfigMap, *corev1.Secret or *claimed; nil: there is none
	err   error         // why it is not known
	told  bool          // somebody was told what it is now, so that a change is news

	ctx    context.Context // ends with the last user
	cancel context.CancelFunc
	poke   chan struct{} // holds one: a new pod refers to it, so try now
	claim  *asking       // nil: it is watched
}

// use counts a pod that refers to the object. Called with mu held.
func (s *Store) use(ref pod.ObjectRef) {
	e := s.objects[ref]
	if e == nil {
		e = &entry{ref: ref, first: make(chan struct{}), poke: make(chan struct{}, 1)}
		e.ctx, e.cancel = context.WithCancel(s.ctx)
		if ref.Kind == pod.ClaimKind {
			e.claim = s.newClaim(e)
		}
		s.objects[ref] = e
		e.users++
		s.begin(e)
		return
	}
	e.users++
	switch {
	case e.claim != nil:
		// A claim is not watched. That the name means the same one for a new pod
		// is known only when it was read again.
		if e.answered() {
			e.first = make(chan struct{})
		}
		s.ask(e.claim)
	case !e.known:
		select {
		case e.poke <- struct{}{}:
		default:
		}
	}
}

// unuse ends with the last pod that refers to the object. Called with mu held.
func (s *Store) unuse(ref pod.ObjectRef) {
	e := s.objects[ref]
	if e == nil {
		return // a token
	}
	if e.users--; e.users > 0 {
		return
	}
	delete(s.objects, ref)
	e.cancel()
	if e.claim != nil {
		e.claim.end()
	}
}

// begin starts what reads the object. Called with mu held.
func (s *Store) begin(e *entry) {
	switch {
	case !s.running:
	case e.claim != nil:
		s.ask(e.claim)
	default:
		s.flights.Go(func() { s.follow(e) })
	}
}

func (e *entry) answered() bool {
	select {
	case <-e.first:
		return true
	default:
		return false
	}
}

// answer closes first, once. Called with mu held.
func (e *entry) answer() {
	if !e.answered() {
		close(e.first)
	}
}

// put notes what the API server told; nil: there is no such object.
func (s *Store) put(e *entry, value any) {
	s.mu.Lock()
	changed := !e.known || e.value != value
	if changed {
		e.known, e.value, e.err = true, value, nil
	}
	e.answer()
	news := changed && e.told && e.ctx.Err() == nil
	if news {
		e.told = false
	}
	s.mu.Unlock()
	if news {
		s.cfg.Changed(e.ref)
	}
}

// fail notes that the object could not be read. What is known stays true, unless
// it was the API server who said otherwise.
func (s *Store) fail(e *entry, err error, said bool) {
	s.mu.Lock()
	news := false
	if said {
		e.known, e.value = false, nil
	}
	if !e.known && e.ctx.Err() == nil {
		news = e.told && (e.err == nil || reason(e.err) != reason(err))
		e.err = err
	}
	if news {
		e.told = false
	}
	e.answer()
	s.mu.Unlock()
	if news {
		s.cfg.Changed(e.ref)
	}
}

// reason is what distinguishes failures enough to wake pods for: their words may
// hold port numbers and times.
func reason(err error) string { return string(apierrors.ReasonForError(err)) }
