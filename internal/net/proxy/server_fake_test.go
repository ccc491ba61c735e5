package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	stdnet "net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// written is one write: a version, and what it made of an object.
type written struct {
	version        int
	resource, kind string
	object         metav1.Object
}

// apiServer speaks list and watch of kube-apiserver for four resources, in JSON,
// over connections in memory, so that its time can be a test's. Faults are put in
// front of it.
type apiServer struct {
	mu        sync.Mutex
	version   int
	objects   map[string]map[string]metav1.Object // by resource and name
	history   []written
	compacted int
	wake      chan struct{} // closed at each write
	requests  []string
	fault     func(w http.ResponseWriter, r *http.Request) bool // answers instead
	noStream  bool                                              // it has no WatchList, and says so
	ignorant  bool                                              // it does not even say so
	mute      bool                                              // watches say nothing
	conns     chan stdnet.Conn
	closed    chan struct{}
	open      []stdnet.Conn
}

func newAPIServer() *apiServer {
	return &apiServer{version: 100, objects: map[string]map[string]metav1.Object{}, wake: make(chan struct{}), conns: make(chan stdnet.Conn), closed: make(chan struct{})}
}

func resourceOf(o metav1.Object) string {
	switch o.(type) {
	case *corev1.Service:
		return "services"
	case *discoveryv1.EndpointSlice:
		return "endpointslices"
	case *networkingv1.ServiceCIDR:
		return "servicecidrs"
	}
	return "nodes"
}

func copyOf(o metav1.Object) metav1.Object {
	switch o := o.(type) {
	case *corev1.Service:
		c := o.DeepCopy()
		c.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}
		return c
	case *discoveryv1.EndpointSlice:
		c := o.DeepCopy()
		c.TypeMeta = metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"}
		return c
	case *networkingv1.ServiceCIDR:
		c := o.DeepCopy()
		c.TypeMeta = metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "ServiceCIDR"}
		return c
	case *corev1.Node:
		c := o.DeepCopy()
		c.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}
		return c
	}
	panic("what is that?")
}

// put writes objects.
func (s *apiServer) put(all ...metav1.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range all {
		s.version++
		o, resource, kind := copyOf(o), resourceOf(o), "MODIFIED"
		o.SetResourceVersion(strconv.Itoa(s.version))
		if s.objects[resource] == nil {
			s.objects[resource] = map[string]metav1.Object{}
		}
		if s.objects[resource][o.GetName()] == nil {
			kind = "ADDED"
		}
		s.objects[resource][o.GetName()] = o
		s.history = append(s.history, written{s.version, resource, kind, o})
	}
	close(s.wake)
	s.wake = make(chan struct{})
}

// remove deletes objects.
func (s *apiServer) remove(all ...metav1.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range all {
		s.version++
		o := copyOf(o)
		o.SetResourceVersion(strconv.Itoa(s.version))
		delete(s.objects[resourceOf(o)], o.GetName())
		s.history = append(s.history, written{s.version, resourceOf(o), "DELETED", o})
	}
	close(s.wake)
	s.wake = make(chan struct{})
}

func (s *apiServer) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// compact forgets what was: who asks for it gets 410.
func (s *apiServer) compact() {
	s.set(func() { s.compacted, s.history = s.version+1, nil; s.version++ })
}

// asked returns the requests since it was last called.
func (s *apiServer) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.requests
	s.requests = nil
	slices.Sort(all)
	return all
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	resource := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	how := "list"
	switch {
	case q.Get("sendInitialEvents") == "true":
		how = "first"
	case q.Get("watch") == "true":
		how = "watch"
	}
	s.mu.Lock()
	s.requests = append(s.requests, how+" "+resource)
	fault, noStream := s.fault, s.noStream
	s.mu.Unlock()
	switch {
	case fault != nil && fault(w, r):
	case how == "first" && noStream:
		refuse(w, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid)
	case how == "list":
		s.list(w, resource, q.Get("continue"))
	default:
		s.watch(w, r, resource, how == "first")
	}
}

// refuse answers with an error of the API.
func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(status(code, reason))
}

func status(code int, reason metav1.StatusReason) metav1.Status {
	return metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Reason: reason, Code: int32(code), Message: string(reason)}
}

// list answers in parts of at most three.
func (s *apiServer) list(w http.ResponseWriter, resource, from string) {
	s.mu.Lock()
	names := slices.Sorted(maps.Keys(s.objects[resource]))
	var items []metav1.Object
	next := ""
	for _, n := range names {
		if n <= from {
			continue
		}
		if len(items) == 3 {
			next = items[2].GetName()
			break
		}
		items = append(items, s.objects[resource][n])
	}
	version := strconv.Itoa(s.version)
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	kind, group := "List", "v1"
	switch resource {
	case "services":
		kind = "ServiceList"
	case "endpointslices":
		kind, group = "EndpointSliceList", "discovery.k8s.io/v1"
	case "nodes":
		kind = "NodeList"
	case "servicecidrs":
		kind, group = "ServiceCIDRList", "networking.k8s.io/v1"
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"kind": kind, "apiVersion": group, "metadata": map[string]any{"resourceVersion": version, "continue": next}, "items": items,
	})
}

func (s *apiServer) watch(w http.ResponseWriter, r *http.Request, resource string, first bool) {
	w.Header().Set("Content-Type", "application/json")
	at, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	send := func(kind string, o any) {
		_ = json.NewEncoder(w).Encode(map[string]any{"type": kind, "object": o})
		_ = http.NewResponseController(w).Flush()
	}
	s.mu.Lock()
	version, compacted, ignorant := s.version, s.compacted, s.ignorant
	all := maps.Clone(s.objects[resource])
	s.mu.Unlock()
	switch {
	case first:
		at = version
		for _, n := range slices.Sorted(maps.Keys(all)) {
			send("ADDED", all[n])
		}
		if !ignorant {
			send("BOOKMARK", bookmark(resource, at, true))
		}
	case at < compacted:
		send("ERROR", status(http.StatusGone, metav1.StatusReasonExpired))
		return
	case at > version:
		ahead := status(http.StatusGatewayTimeout, metav1.StatusReasonTimeout)
		ahead.Details = &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge}}}
		send("ERROR", ahead)
		return
	}
	_ = http.NewResponseController(w).Flush() // the head, also where there is nothing
	beat := time.NewTicker(time.Minute)
	defer beat.Stop()
	seconds, _ := strconv.Atoi(r.URL.Query().Get("timeoutSeconds"))
	end := time.NewTimer(time.Duration(seconds) * time.Second)
	defer end.Stop()
	lost := false // something on the way: no bookmark may say that it was told
	for {
		s.mu.Lock()
		var next []written
		for _, e := range s.history {
			if e.version > at && e.resource == resource {
				next = append(next, e)
			}
		}
		version, wake, mute := s.version, s.wake, s.mute
		s.mu.Unlock()
		for _, e := range next {
			if at, lost = e.version, lost || mute; !lost {
				send(e.kind, e.object)
			}
		}
		select {
		case <-wake:
		case <-beat.C:
			if !mute && !lost && !s.ignorant {
				at = max(at, version)
				send("BOOKMARK", bookmark(resource, at, false))
			}
		case <-end.C:
			return
		case <-r.Context().Done():
			return
		case <-s.closed:
			return
		}
	}
}

func bookmark(resource string, version int, whole bool) any {
	meta := map[string]any{"resourceVersion": strconv.Itoa(version)}
	if whole {
		meta["annotations"] = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	}
	kind := map[string][2]string{"services": {"Service", "v1"}, "endpointslices": {"EndpointSlice", "discovery.k8s.io/v1"}, "nodes": {"Node", "v1"}, "servicecidrs": {"ServiceCIDR", "networking.k8s.io/v1"}}[resource]
	return map[string]any{"kind": kind[0], "apiVersion": kind[1], "metadata": meta}
}

// The listener, and the way to it.

func (s *apiServer) Accept() (stdnet.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.closed:
		return nil, stdnet.ErrClosed
	}
}
func (s *apiServer) Close() error      { return nil }
func (s *apiServer) Addr() stdnet.Addr { return &stdnet.UnixAddr{Name: "memory"} }

func (s *apiServer) dial(ctx context.Context, _, _ string) (stdnet.Conn, error) {
	near, far := stdnet.Pipe()
	select {
	case s.conns <- far:
	case <-s.closed:
		return nil, fmt.Errorf("dial: connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = append(s.open, far)
	return near, nil
}

// cut closes the connections of now.
func (s *apiServer) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.open {
		c.Close()
	}
	s.open = nil
}
