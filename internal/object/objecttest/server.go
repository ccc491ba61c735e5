// Package objecttest is an API server in memory, as far as a node reads objects
// and asks for tokens: versions, lists, watches that begin with a state or go on
// from a version, compaction, and the node authorizer's rule that one object at a
// time is read. It fails as a test tells it to.
//
// It implements object.API directly, for tests in virtual time, and http.Handler,
// for those over the wire. All methods may be called from any goroutine.
package objecttest

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"nodeagent/internal/pod"
)

// TokenText begins each token, so that a test can look for it where none may be.
const TokenText = "canary-token-"

// Server is the API server.
type Server struct {
	// Fault is asked before each call, with one of get, list, watch and token; an
	// error is the answer. It may wait. Set it before use.
	Fault func(ctx context.Context, verb string, ref pod.ObjectRef) error
	// Old makes it refuse watches that begin with a state.
	Old bool
	// TokenSeconds is how long tokens live for those who do not say; 3600 if zero.
	TokenSeconds int64

	mu      sync.Mutex
	version int64
	floor   int64 // what is older was compacted
	uids    int
	objects map[pod.ObjectRef]object
	log     []logged
	streams map[*stream]bool
	calls   map[string]int
	under   int
	most    int
	tokens  []*authenticationv1.TokenRequest
}

type object interface {
	runtime.Object
	metav1.Object
}

type logged struct {
	version int64
	ref     pod.ObjectRef
	event   watch.Event
}

// serviceKind is the kind of services, which are watched all together.
const serviceKind pod.ObjectKind = "Service"

// Ref is the name of an object.
func Ref(o runtime.Object) pod.ObjectRef {
	var k pod.ObjectKind
	switch o.(type) {
	case *corev1.ConfigMap:
		k = pod.ConfigMapKind
	case *corev1.Secret:
		k = pod.SecretKind
	case *corev1.PersistentVolumeClaim:
		k = pod.ClaimKind
	case *corev1.PersistentVolume:
		k = "PersistentVolume"
	case *corev1.Service:
		k = serviceKind
	}
	m := o.(metav1.Object)
	return pod.ObjectRef{Kind: k, Namespace: m.GetNamespace(), Name: m.GetName()}
}

// Put makes or changes an object and returns it as it is stored.
func (s *Server) Put(o runtime.Object) runtime.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.objects == nil {
		s.objects = map[pod.ObjectRef]object{}
	}
	stored, ref, kind := o.DeepCopyObject().(object), Ref(o), watch.Added
	s.version++
	stored.SetResourceVersion(strconv.FormatInt(s.version, 10))
	if held := s.objects[ref]; held != nil {
		kind = watch.Modified
		stored.SetUID(held.GetUID())
	} else if stored.GetUID() == "" {
		s.uids++
		stored.SetUID(types.UID(fmt.Sprintf("uid-%d", s.uids)))
	}
	s.objects[ref] = stored
	s.tell(ref, watch.Event{Type: kind, Object: stored})
	return stored.DeepCopyObject()
}

// Delete deletes one.
func (s *Server) Delete(ref pod.ObjectRef) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.objects[ref]
	if o == nil {
		return
	}
	delete(s.objects, ref)
	s.version++
	gone := o.DeepCopyObject().(object)
	gone.SetResourceVersion(strconv.FormatInt(s.version, 10))
	s.tell(ref, watch.Event{Type: watch.Deleted, Object: gone})
}

// tell is called with mu held.
func (s *Server) tell(ref pod.ObjectRef, e watch.Event) {
	s.log = append(s.log, logged{s.version, ref, e})
	for w := range s.streams {
		if w.shows(ref) {
			w.send(e)
		}
	}
}

// Compact forgets what was before now: watches cannot go on from there.
func (s *Server) Compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	s.floor = s.version
}

// Break ends all watches, as a restart of the server does; with a reason, by
// telling it first.
func (s *Server) Break(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.streams {
		if reason != nil {
			w.send(failed(reason))
		}
		delete(s.streams, w)
		close(w.events)
	}
}

// Mark sends a bookmark to all watches.
func (s *Server) Mark() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	for w := range s.streams {
		w.send(s.bookmark(w.ref, false))
	}
}

// Mute has the watches that there are say nothing any more, bookmarks neither, as a
// proxy does that lives before a server that is dead.
func (s *Server) Mute() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.streams {
		w.mute = true
	}
}

// Watches is how many watches there are.
func (s *Server) Watches() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

// Calls is how often it was asked, by verb; refused calls count.
func (s *Server) Calls(verb string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[verb]
}

// Most is how many calls it ever had at once that were not answered yet.
func (s *Server) Most() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most
}

// Tokens are the requests for tokens that were granted.
func (s *Server) Tokens() []*authenticationv1.TokenRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*authenticationv1.TokenRequest(nil), s.tokens...)
}

func (s *Server) enter(ctx context.Context, verb string, ref pod.ObjectRef) error {
	s.mu.Lock()
	if s.calls == nil {
		s.calls = map[string]int{}
	}
	s.calls[verb]++
	s.under++
	s.most = max(s.most, s.under)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.under--
		s.mu.Unlock()
	}()
	if s.Fault == nil {
		return ctx.Err()
	}
	return s.Fault(ctx, verb, ref)
}

// Get implements object.API.
func (s *Server) Get(ctx context.Context, ref pod.ObjectRef) (runtime.Object, error) {
	if err := s.enter(ctx, "get", ref); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.objects[ref]
	if o == nil {
		return nil, apierrors.NewNotFound(resource(ref.Kind), ref.Name)
	}
	return o.DeepCopyObject(), nil
}

// List implements object.API.
func (s *Server) List(ctx context.Context, ref pod.ObjectRef) (runtime.Object, string, error) {
	if err := s.enter(ctx, "list", ref); err != nil {
		return nil, "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	version := strconv.FormatInt(s.version, 10)
	if o := s.objects[ref]; o != nil {
		return o.DeepCopyObject(), version, nil
	}
	return nil, version, nil
}

// Watch implements object.API.
func (s *Server) Watch(ctx context.Context, ref pod.ObjectRef, options metav1.ListOptions) (watch.Interface, error) {
	if err := s.enter(ctx, "watch", ref); err != nil {
		return nil, err
	}
	state := options.SendInitialEvents != nil && *options.SendInitialEvents
	if state && s.Old {
		return nil, apierrors.NewInvalid(schema.GroupKind{Kind: "ListOptions"}, "", nil)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &stream{s: s, ref: ref, events: make(chan watch.Event, 64)}
	from, _ := strconv.ParseInt(options.ResourceVersion, 10, 64)
	switch {
	case state || options.ResourceVersion == "":
		for at, o := range s.objects {
			if w.shows(at) {
				w.send(watch.Event{Type: watch.Added, Object: o})
			}
		}
		if state {
			w.send(s.bookmark(ref, true))
		}
	case from < s.floor:
		w.send(failed(apierrors.NewResourceExpired("too old resource version")))
	default:
		for _, l := range s.log {
			if l.version > from && w.shows(l.ref) {
				w.send(l.event)
			}
		}
	}
	if s.streams == nil {
		s.streams = map[*stream]bool{}
	}
	s.streams[w] = true
	w.unhook = context.AfterFunc(ctx, w.Stop)
	w.marks = time.AfterFunc(time.Minute, w.mark)
	return w, nil
}

// bookmark is called with mu held.
func (s *Server) bookmark(ref pod.ObjectRef, initial bool) watch.Event {
	o := empty(ref.Kind)
	o.SetResourceVersion(strconv.FormatInt(s.version, 10))
	if initial {
		o.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return watch.Event{Type: watch.Bookmark, Object: o}
}

func failed(err error) watch.Event {
	if status, ok := err.(apierrors.APIStatus); ok {
		answer := status.Status()
		return watch.Event{Type: watch.Error, Object: &answer}
	}
	return watch.Event{Type: watch.Error, Object: &metav1.Status{Status: metav1.StatusFailure, Message: err.Error(), Code: 500}}
}

// Token implements object.API.
func (s *Server) Token(ctx context.Context, namespace, account string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	if err := s.enter(ctx, "token", pod.ObjectRef{Kind: pod.TokenKind, Namespace: namespace, Name: account}); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := request.DeepCopy()
	if answer.Spec.ExpirationSeconds == nil {
		answer.Spec.ExpirationSeconds = new(cmp.Or(s.TokenSeconds, 3600))
	}
	s.tokens = append(s.tokens, request.DeepCopy())
	answer.Status.Token = fmt.Sprintf("%s%d", TokenText, len(s.tokens))
	return answer, nil
}

func empty(k pod.ObjectKind) object {
	switch k {
	case pod.ConfigMapKind:
		return &corev1.ConfigMap{}
	case pod.SecretKind:
		return &corev1.Secret{}
	case pod.ClaimKind:
		return &corev1.PersistentVolumeClaim{}
	case serviceKind:
		return &corev1.Service{}
	}
	return &corev1.PersistentVolume{}
}

func resource(k pod.ObjectKind) schema.GroupResource {
	for name, kind := range kinds {
		if kind == k {
			return corev1.Resource(name)
		}
	}
	return schema.GroupResource{}
}

var kinds = map[string]pod.ObjectKind{
	"configmaps": pod.ConfigMapKind, "secrets": pod.SecretKind,
	"persistentvolumeclaims": pod.ClaimKind, "persistentvolumes": "PersistentVolume",
	"services": serviceKind,
}
