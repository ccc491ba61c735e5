// Package statustest owns an API server for tests of what a node writes: real HTTP over
// connections in memory, pods and events in client-go's object tracker, and the rules of
// a real one that matter to a writer (UIDs, preconditions, grace, versions). It makes
// what it is told to go wrong, counts what it is asked, and finds what a node must never
// write. It is for tests alone and may be used from any goroutine.
package statustest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	clienttesting "k8s.io/client-go/testing"
)

// Request is what the server was asked.
type Request struct {
	Verb      string // get, create, patch, delete
	Resource  string // pods, pods/status, events
	Namespace string
	Name      string // "" of what is to be made
	Body      string // of a patch
	At        time.Time
}

// Fault is what goes wrong with a request.
type Fault struct {
	Status     int           // answered in place of the truth
	RetryAfter int           // seconds
	Delay      time.Duration // before anything is done
	Refuse     bool          // the connection is cut before anything is done
	Lose       bool          // it is done, but the connection is cut before the answer
}

// Server is an API server.
type Server struct {
	codecs serializer.CodecFactory
	scheme *runtime.Scheme

	mu        sync.Mutex
	tracker   clienttesting.ObjectTracker
	version   int
	requests  []Request
	fault     func(Request) Fault
	changed   func()
	illegal   []string
	dropField func(*corev1.PodStatus)
}

var (
	podsResource   = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	eventsResource = schema.GroupVersionResource{Version: "v1", Resource: "events"}
)

// New returns a server without pods.
func New() *Server {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		panic(err)
	}
	codecs := serializer.NewCodecFactory(scheme)
	return &Server{
		scheme: scheme, codecs: codecs, version: 100,
		tracker: clienttesting.NewObjectTracker(scheme, codecs.UniversalDecoder()),
		fault:   func(Request) Fault { return Fault{} }, changed: func() {},
	}
}

// Faults says from now on what goes wrong with each request.
func (s *Server) Faults(f func(Request) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Forget makes the server one that does not know a part of pods' status.
func (s *Server) Forget(drop func(*corev1.PodStatus)) { s.dropField = drop }

// OnChange calls changed after each change of a pod, with no lock held.
func (s *Server) OnChange(changed func()) { s.changed = changed }

// Requests are all that were made so far.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Asked lists what was asked since the last call of Asked, as "verb resource name".
func (s *Server) Asked() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		all = append(all, strings.TrimSpace(r.Verb+" "+r.Resource+" "+r.Name))
	}
	s.requests = nil
	return all
}

// Illegal lists what was written and must never be.
func (s *Server) Illegal() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.illegal)
}

// Pods are those of the node that are no mirror pods, and Mirrors those that are.
func (s *Server) Pods() (pods, mirrors []*corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := s.tracker.List(podsResource, corev1.SchemeGroupVersion.WithKind("Pod"), "")
	if err != nil {
		panic(err)
	}
	for _, p := range list.(*corev1.PodList).Items {
		if _, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
			mirrors = append(mirrors, &p)
		} else {
			pods = append(pods, &p)
		}
	}
	return pods, mirrors
}

// Pod returns one, or nil.
func (s *Server) Pod(namespace, name string) *corev1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, _ := s.get(namespace, name)
	return p
}

// Events are all that were told.
func (s *Server) Events() []corev1.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := s.tracker.List(eventsResource, corev1.SchemeGroupVersion.WithKind("Event"), "")
	if err != nil {
		panic(err)
	}
	return list.(*corev1.EventList).Items
}

// Add makes a pod as somebody else would.
func (s *Server) Add(p *corev1.Pod) {
	s.mu.Lock()
	s.put(p.DeepCopy(), true)
	s.mu.Unlock()
	s.changed()
}

// Edit changes a pod as somebody else would.
func (s *Server) Edit(namespace, name string, edit func(*corev1.Pod)) {
	s.mu.Lock()
	p, err := s.get(namespace, name)
	if err == nil {
		edit(p)
		s.put(p, false)
	}
	s.mu.Unlock()
	s.changed()
}

// Delete deletes a pod as kubectl would; with force, at once.
func (s *Server) Delete(namespace, name string, force bool) {
	s.mu.Lock()
	if p, err := s.get(namespace, name); err == nil {
		grace := int64(30)
		if force {
			grace = 0
		}
		_ = s.remove(p, &metav1.DeleteOptions{GracePeriodSeconds: &grace})
	}
	s.mu.Unlock()
	s.changed()
}

func (s *Server) get(namespace, name string) (*corev1.Pod, error) {
	o, err := s.tracker.Get(podsResource, namespace, name)
	if err != nil {
		return nil, err
	}
	return o.(*corev1.Pod).DeepCopy(), nil
}

// put keeps a pod as its newest version.
func (s *Server) put(p *corev1.Pod, fresh bool) {
	s.version++
	p.ResourceVersion = strconv.Itoa(s.version)
	put := s.tracker.Update
	if fresh {
		put = func(r schema.GroupVersionResource, o runtime.Object, ns string, _ ...metav1.UpdateOptions) error {
			return s.tracker.Create(r, o, ns)
		}
	}
	if err := put(podsResource, p, p.Namespace); err != nil {
		panic(fmt.Sprintf("keep pod %s: %v", p.Name, err))
	}
}

// remove does what a DELETE does.
func (s *Server) remove(p *corev1.Pod, o *metav1.DeleteOptions) error {
	if o.Preconditions != nil && o.Preconditions.UID != nil && *o.Preconditions.UID != p.UID {
		return apierrors.NewConflict(podsResource.GroupResource(), p.Name, fmt.Errorf("precondition failed: UID in precondition: %s, UID in object meta: %s", *o.Preconditions.UID, p.UID))
	}
	if o.GracePeriodSeconds != nil && *o.GracePeriodSeconds == 0 && len(p.Finalizers) == 0 {
		s.version++
		return s.tracker.Delete(podsResource, p.Namespace, p.Name)
	}
	if p.DeletionTimestamp == nil {
		now := metav1.Now()
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &now, o.GracePeriodSeconds
		s.put(p, false)
	}
	return nil
}

// create does what a POST does.
func (s *Server) create(p *corev1.Pod) (*corev1.Pod, error) {
	if _, err := s.get(p.Namespace, p.Name); err == nil {
		return nil, apierrors.NewAlreadyExists(podsResource.GroupResource(), p.Name)
	}
	owner := metav1.GetControllerOf(p)
	if _, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]; !mirror || owner == nil || owner.Kind != "Node" || owner.UID == "" {
		return nil, apierrors.NewForbidden(podsResource.GroupResource(), p.Name, fmt.Errorf("a node can only create mirror pods that it owns"))
	}
	p.UID = types.UID(fmt.Sprintf("made-%d", s.version))
	p.CreationTimestamp = metav1.Now()
	p.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: corev1.PodQOSBestEffort}
	s.put(p, true)
	return p, nil
}

// patchStatus does what a PATCH of the status does.
func (s *Server) patchStatus(namespace, name string, patch []byte) (*corev1.Pod, error) {
	before, err := s.get(namespace, name)
	if err != nil {
		return nil, err
	}
	old, err := json.Marshal(before)
	if err != nil {
		return nil, err
	}
	merged, err := strategicpatch.StrategicMergePatch(old, patch, &corev1.Pod{})
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	after := &corev1.Pod{}
	if err := json.Unmarshal(merged, after); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if after.UID != before.UID {
		return nil, apierrors.NewConflict(podsResource.GroupResource(), name, fmt.Errorf("precondition failed: UID in precondition: %s, UID in object meta: %s", after.UID, before.UID))
	}
	p := before.DeepCopy()
	p.Status = after.Status
	if s.dropField != nil {
		s.dropField(&p.Status)
	}
	s.judge(before, p, patch)
	if now, err := json.Marshal(p); err == nil && string(now) == string(old) {
		return p, nil // nothing changed: no new version
	}
	s.put(p, false)
	return p, nil
}

// judge finds what no node may write.
func (s *Server) judge(before, after *corev1.Pod, patch []byte) {
	wrong := func(format string, args ...any) {
		s.illegal = append(s.illegal, fmt.Sprintf("%s (%s): %s; the patch is %s", after.Name, after.UID, fmt.Sprintf(format, args...), patch))
	}
	rank := map[corev1.PodPhase]int{corev1.PodPending: 1, corev1.PodRunning: 2, corev1.PodSucceeded: 3, corev1.PodFailed: 3}
	was, is := before.Status.Phase, after.Status.Phase
	if rank[is] < rank[was] || rank[was] == 3 && is != was {
		wrong("the phase goes back from %s to %s", was, is)
	}
	for _, c := range after.Status.ContainerStatuses {
		for _, b := range before.Status.ContainerStatuses {
			if b.Name == c.Name && c.RestartCount < b.RestartCount {
				wrong("the restart count of %s falls from %d to %d", c.Name, b.RestartCount, c.RestartCount)
			}
		}
	}
	if !strings.Contains(string(patch), `"uid"`) {
		wrong("it does not say which pod it is for")
	}
}

// do serves one request that no fault hit.
func (s *Server) do(r Request, body []byte) (runtime.Object, error) {
	switch {
	case r.Resource == "pods" && r.Verb == "get":
		return orNil(s.get(r.Namespace, r.Name))
	case r.Resource == "pods" && r.Verb == "create":
		p := &corev1.Pod{}
		if err := s.decode(body, p); err != nil {
			return nil, err
		}
		return orNil(s.create(p))
	case r.Resource == "pods/status" && r.Verb == "patch":
		return orNil(s.patchStatus(r.Namespace, r.Name, body))
	case r.Resource == "pods" && r.Verb == "delete":
		o := &metav1.DeleteOptions{}
		if err := s.decode(body, o); err != nil {
			return nil, err
		}
		p, err := s.get(r.Namespace, r.Name)
		if err != nil {
			return nil, err
		}
		return p, s.remove(p, o)
	case r.Resource == "events" && r.Verb == "create":
		e := &corev1.Event{}
		if err := s.decode(body, e); err != nil {
			return nil, err
		}
		return e, s.tracker.Create(eventsResource, e, r.Namespace)
	case r.Resource == "events" && r.Verb == "patch":
		return s.patchEvent(r.Namespace, r.Name, body)
	}
	s.illegal = append(s.illegal, fmt.Sprintf("%s %s: no node writes that here", r.Verb, r.Resource))
	return nil, apierrors.NewMethodNotSupported(podsResource.GroupResource(), r.Verb)
}

func orNil(p *corev1.Pod, err error) (runtime.Object, error) {
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (s *Server) patchEvent(namespace, name string, patch []byte) (runtime.Object, error) {
	o, err := s.tracker.Get(eventsResource, namespace, name)
	if err != nil {
		return nil, err
	}
	e := o.(*corev1.Event).DeepCopy()
	if err := json.Unmarshal(patch, e); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return e, s.tracker.Update(eventsResource, e, namespace)
}

func (s *Server) decode(body []byte, into runtime.Object) error {
	if _, _, err := s.codecs.UniversalDeserializer().Decode(body, nil, into); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return nil
}

// statusOf is the answer for an error.
func statusOf(err error) *metav1.Status {
	if known, ok := err.(apierrors.APIStatus); ok {
		st := known.Status()
		return &st
	}
	return &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError, Message: err.Error()}
}

// RequestsLocked and PodLocked are for a function that says what goes wrong, which is
// called with the server's lock held.
func (s *Server) RequestsLocked() []Request { return s.requests }

// PodLocked is Pod for such a function.
func (s *Server) PodLocked(namespace, name string) *corev1.Pod {
	p, _ := s.get(namespace, name)
	return p
}
