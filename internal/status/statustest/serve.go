package statustest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
)

// ServeHTTP serves one request, or lets it go wrong.
func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	r := parse(req)
	if r.Verb == "patch" {
		r.Body = string(body)
	}
	s.mu.Lock()
	s.requests = append(s.requests, r)
	fault := s.fault(r)
	s.mu.Unlock()
	if fault.Delay > 0 {
		select {
		case <-time.After(fault.Delay):
		case <-req.Context().Done():
			return
		}
	}
	if fault.Refuse {
		panic(http.ErrAbortHandler)
	}
	if fault.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(fault.RetryAfter))
	}
	if fault.Status != 0 {
		s.answer(w, req, fault.Status, failure(fault))
		return
	}
	s.mu.Lock()
	o, err := s.do(r, body)
	s.mu.Unlock()
	if err == nil && r.Verb != "get" {
		s.changed()
	}
	switch {
	case fault.Lose:
		panic(http.ErrAbortHandler)
	case err != nil:
		st := statusOf(err)
		s.answer(w, req, int(st.Code), st)
	default:
		s.answer(w, req, http.StatusOK, o)
	}
}

// failure is what a server answers with this code.
func failure(f Fault) *metav1.Status {
	reasons := map[int]metav1.StatusReason{
		400: metav1.StatusReasonBadRequest, 401: metav1.StatusReasonUnauthorized, 403: metav1.StatusReasonForbidden,
		404: metav1.StatusReasonNotFound, 409: metav1.StatusReasonConflict, 422: metav1.StatusReasonInvalid,
		429: metav1.StatusReasonTooManyRequests, 500: metav1.StatusReasonInternalError,
		503: metav1.StatusReasonServiceUnavailable, 504: metav1.StatusReasonTimeout,
	}
	st := &metav1.Status{Status: metav1.StatusFailure, Code: int32(f.Status), Reason: reasons[f.Status], Message: "made to fail"}
	if f.RetryAfter > 0 {
		st.Details = &metav1.StatusDetails{RetryAfterSeconds: int32(f.RetryAfter)}
	}
	return st
}

// answer writes an object as the client wants it: protobuf where it may.
func (s *Server) answer(w http.ResponseWriter, req *http.Request, code int, o runtime.Object) {
	wanted := runtime.ContentTypeJSON
	if strings.Contains(req.Header.Get("Accept"), runtime.ContentTypeProtobuf) {
		wanted = runtime.ContentTypeProtobuf
	}
	info, _ := runtime.SerializerInfoForMediaType(s.codecs.SupportedMediaTypes(), wanted)
	body, err := runtime.Encode(s.codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion), o)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", wanted)
	w.WriteHeader(code)
	_, _ = w.Write(body)
}

// parse reads /api/v1/namespaces/NS/RESOURCE[/NAME[/SUB]].
func parse(req *http.Request) Request {
	parts := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	verbs := map[string]string{http.MethodGet: "get", http.MethodPost: "create", http.MethodPatch: "patch", http.MethodDelete: "delete"}
	r := Request{Verb: verbs[req.Method], At: time.Now()}
	if len(parts) > 4 {
		r.Namespace, r.Resource = parts[3], parts[4]
	}
	if len(parts) > 5 {
		r.Name = parts[5]
	}
	if len(parts) > 6 {
		r.Resource += "/" + parts[6]
	}
	return r
}

// Serve serves connections in memory, and returns a client for core/v1
// that speaks protobuf. stop ends both and waits for it.
func (s *Server) Serve() (client rest.Interface, stop func(), err error) {
	l := &listener{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: s}
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	transport := &http.Transport{DialContext: l.dial}
	stop = func() {
		transport.CloseIdleConnections()
		_ = server.Close()
		served.Wait()
	}
	client, err = rest.RESTClientForConfigAndClient(&rest.Config{
		Host: "http://api.test", APIPath: "/api", QPS: -1,
		ContentConfig: rest.ContentConfig{
			GroupVersion: &corev1.SchemeGroupVersion, NegotiatedSerializer: s.codecs.WithoutConversion(),
			ContentType:        runtime.ContentTypeProtobuf,
			AcceptContentTypes: runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON,
		},
	}, &http.Client{Transport: transport})
	return client, stop, err
}

// listener hands connections over in memory, so that a bubble of virtual time holds
// both ends.
type listener struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *listener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: "api.test", Net: "pipe"} }
