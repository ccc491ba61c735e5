package nodetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// Request is one that the server got.
type Request struct {
	At            time.Time
	Verb          string // list, watch, create, patch, get, update
	Resource      string // nodes or leases
	Body          string // of a patch
	ContentType   string
	FieldSelector string
}

// Fault is what goes wrong with a request.
type Fault struct {
	Hang  bool // no answer, ever
	Drop  bool // it is carried out, and the answer is lost
	Error *apierrors.StatusError
	Delay time.Duration
}

// Server is the API server.
type Server struct {
	http  *httptest.Server
	pipes pipes

	mu       sync.Mutex
	version  int64
	made     int
	node     *corev1.Node
	lease    *coordinationv1.Lease
	watchers map[chan event]bool // false: it is told nothing any more
	requests []Request
	fault    func(Request) *Fault
	refused  bool
	forgets  func(*corev1.Node)
	count    map[string]int
}

// New starts a server. Close ends it.
func New() *Server {
	s := &Server{
		pipes:    pipes{conns: make(chan net.Conn), closed: make(chan struct{})},
		version:  1000,
		watchers: map[chan event]bool{}, count: map[string]int{},
		fault: func(Request) *Fault { return nil },
	}
	s.http = &httptest.Server{Listener: &s.pipes, Config: &http.Server{Handler: s}}
	s.http.Start()
	return s
}

// Close ends all connections.
func (s *Server) Close() {
	s.http.CloseClientConnections()
	s.EndWatches()
	s.http.Close()
}

// Config is for a client of this server.
func (s *Server) Config() *rest.Config {
	return &rest.Config{
		Host: "http://api.test", Dial: s.Dial,
		Proxy: func(*http.Request) (*url.URL, error) { return nil, nil }, // whatever the environment says
	}
}

// Dial connects to the server.
func (s *Server) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	s.mu.Lock()
	refused := s.refused
	s.count["dial"]++
	s.mu.Unlock()
	if refused {
		return nil, errors.New("connection refused")
	}
	client, server := net.Pipe()
	select {
	case s.pipes.conns <- server:
		return client, nil
	case <-s.pipes.closed:
	case <-ctx.Done():
	}
	return nil, errors.New("connection refused")
}

// Refuse has new connections refused, and ends those that are.
func (s *Server) Refuse(refuse bool) {
	s.mu.Lock()
	s.refused = refuse
	s.mu.Unlock()
	if refuse {
		s.http.CloseClientConnections()
		s.EndWatches()
	}
}

// SetFault gives each request a fault, or nil for none.
func (s *Server) SetFault(f func(Request) *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Forget takes fields that this server does not know out of what it is given.
func (s *Server) Forget(f func(*corev1.Node)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgets = f
}

// Requests are those of a verb and a resource, "" for any, in order.
func (s *Server) Requests(verb, resource string) []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Request
	for _, r := range s.requests {
		if (verb == "" || r.Verb == verb) && (resource == "" || r.Resource == resource) {
			all = append(all, r)
		}
	}
	return all
}

// Dials is how often somebody tried to connect.
func (s *Server) Dials() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count["dial"]
}

// pipes is a listener whose connections are pipes.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "api.test", Net: "unix"} }

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
	if err != nil {
		return
	}
	req := parse(r, body)
	s.mu.Lock()
	s.requests = append(s.requests, req)
	fault := s.fault(req)
	s.mu.Unlock()
	if fault == nil {
		fault = &Fault{}
	}
	if fault.Delay > 0 {
		t := time.NewTimer(fault.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.Context().Done():
			return
		}
	}
	switch {
	case fault.Hang:
		<-r.Context().Done()
		return
	case fault.Error != nil:
		fail(w, r, fault.Error)
		return
	case req.Verb == "watch":
		s.watch(w, r)
		return
	}
	answer, err := s.do(req, r, body)
	switch {
	case fault.Drop:
		panic(http.ErrAbortHandler)
	case err != nil:
		fail(w, r, err)
	default:
		reply(w, r, http.StatusOK, answer)
	}
}

// parse tells what a request is; the verb of an unknown one is empty.
func parse(r *http.Request, body []byte) Request {
	req := Request{At: time.Now(), ContentType: r.Header.Get("Content-Type"), FieldSelector: r.URL.Query().Get("fieldSelector")}
	name := ""
	switch {
	case strings.HasPrefix(r.URL.Path, "/api/v1/nodes"):
		req.Resource, name = "nodes", strings.TrimPrefix(r.URL.Path, "/api/v1/nodes")
	case strings.HasPrefix(r.URL.Path, leasesPath):
		req.Resource, name = "leases", strings.TrimPrefix(r.URL.Path, leasesPath)
	}
	switch {
	case r.Method == http.MethodGet && r.URL.Query().Get("watch") != "":
		req.Verb = "watch"
	case r.Method == http.MethodGet && name == "":
		req.Verb = "list"
	case r.Method == http.MethodGet:
		req.Verb = "get"
	case r.Method == http.MethodPost && name == "":
		req.Verb = "create"
	case r.Method == http.MethodPut:
		req.Verb = "update"
	case r.Method == http.MethodPatch && strings.HasSuffix(name, "/status"):
		req.Verb, req.Body = "patch", string(body)
	}
	return req
}

const leasesPath = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"

// codecs are those of what this server holds.
func codecs() serializer.CodecFactory {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, coordinationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(fmt.Sprint("make the scheme: ", err))
		}
	}
	return serializer.NewCodecFactory(scheme)
}
