package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Pods is the pod set as the socket shows it.
type Pods interface {
	Pods() []*corev1.Pod
	Watch(ctx context.Context, tell func(p *corev1.Pod, gone bool) error) error
}

// SocketConfig says what the socket shows.
type SocketConfig struct {
	Path string // <runDir>/nodeagent.sock
	Pods Pods
	// Info are more documents by name, served at /v1/<name>.
	Info map[string]func() any
	// Metrics are written in Prometheus' text format: "" at /metrics, any other
	// at /metrics/<name>.
	Metrics map[string]func(context.Context, io.Writer) error
	// Reload makes the daemon begin anew with the configuration that is on the
	// disk now, or says why not; nil: it cannot.
	Reload func() error
	// Restart restarts a container of a pod, or with "" all; nil: it cannot. An
	// error that wraps ErrNotFound or ErrEnded tells so.
	Restart func(namespace, name, container string) error
	// Explain tells how the gates of the pod of that UID stand; nil: it cannot. An
	// error that wraps ErrNotFound tells that there is none.
	Explain func(ctx context.Context, uid string) (any, error)
	// Service tells what is known of a Service and its rules; nil: it cannot.
	Service func(ctx context.Context, namespace, name string) (any, error)
	Logger  *slog.Logger
}

// Why a restart is refused.
var (
	ErrNotFound = errors.New("not found")
	ErrEnded    = errors.New("ended")
)

// Socket serves HTTP and JSON to the command line.
type Socket struct {
	cfg      SocketConfig
	listener net.Listener
}

// NewSocket returns a server that does not listen yet.
func NewSocket(cfg SocketConfig) (*Socket, error) {
	if cfg.Path == "" || cfg.Pods == nil {
		return nil, errors.New("configure the local socket: path and pods are needed")
	}
	return &Socket{cfg: cfg}, nil
}

// Limits of a request; a watch lasts as long as its client.
const (
	headerTimeout = 5 * time.Second
	maxHeader     = 64 << 10
	closeTimeout  = time.Second
	writeTimeout  = 30 * time.Second // of one change of a watch
)

// Listen opens the socket; Run answers on it. They are two, so that nobody is
// told that the daemon is ready before it can be asked.
func (s *Socket) Listen() (err error) {
	if s.listener, err = listen(s.cfg.Path); err != nil {
		return fmt.Errorf("open the local socket: %w", err)
	}
	return nil
}

// handler are the routes.
func (s *Socket) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/pods", s.pods)
	mux.HandleFunc("GET /v1/watch", s.watch)
	if s.cfg.Reload != nil {
		mux.HandleFunc("POST /v1/reload", s.reload)
	}
	if s.cfg.Restart != nil {
		mux.HandleFunc("POST /v1/restart", s.restart)
	}
	if s.cfg.Explain != nil {
		mux.HandleFunc("GET /v1/explain", s.explain)
	}
	if s.cfg.Service != nil {
		mux.HandleFunc("GET /v1/service", s.service)
	}
	for name, info := range s.cfg.Info {
		mux.HandleFunc("GET /v1/"+name, func(w http.ResponseWriter, _ *http.Request) { write(w, info()) })
	}
	for name, figures := range s.cfg.Metrics {
		mux.HandleFunc("GET "+path.Join("/metrics", name), func(w http.ResponseWriter, r *http.Request) { _ = writeMetrics(w, r, figures) })
	}
	return mux
}

// Run serves until ctx ends. Listen comes first.
func (s *Socket) Run(ctx context.Context) error {
	server := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: headerTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
	return serve(ctx, server, s.listener)
}

// listen replaces the socket of a daemon that is gone; the daemon's lock is held
// by now, so nobody else listens there.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	// Whatever is there, and were it a directory that somebody put there.
	if err := os.RemoveAll(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// serve runs the server until ctx ends and what was asked by then is answered, or
// closeTimeout is over. Serve alone returns as soon as Shutdown begins.
func serve(ctx context.Context, server *http.Server, l net.Listener) error {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		if server.Shutdown(bounded) != nil {
			_ = server.Close()
		}
	})
	err := server.Serve(l)
	if !stop() {
		<-closed
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *Socket) pods(w http.ResponseWriter, _ *http.Request) {
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: []corev1.Pod{}}
	for _, p := range s.cfg.Pods.Pods() {
		list.Items = append(list.Items, *p)
	}
	write(w, list)
}

// reload answers before the daemon ends, since Shutdown waits for answers.
func (s *Socket) reload(w http.ResponseWriter, _ *http.Request) {
	answer := map[string]string{}
	w.Header().Set("Content-Type", "application/json")
	if err := s.cfg.Reload(); err != nil {
		answer["error"] = err.Error()
		w.WriteHeader(http.StatusUnprocessableEntity)
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// restart takes the names from the query: ?namespace=…&name=…[&container=…].
func (s *Socket) restart(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	answer, status := map[string]string{}, http.StatusOK
	if err := s.cfg.Restart(q.Get("namespace"), q.Get("name"), q.Get("container")); err != nil {
		answer["error"] = err.Error()
		switch {
		case errors.Is(err, ErrNotFound):
			status = http.StatusNotFound
		case errors.Is(err, ErrEnded):
			status = http.StatusConflict
		default:
			status = http.StatusInternalServerError
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}

// watchEvent is one line of /v1/watch.
type watchEvent struct {
	Type   string      `json:"type"` // MODIFIED or DELETED
	Object *corev1.Pod `json:"object"`
}

// watch streams a line for each pod that changes, beginning with all.
func (s *Socket) watch(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	flusher := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	_ = flusher.Flush()
	_ = s.cfg.Pods.Watch(r.Context(), func(p *corev1.Pod, gone bool) error {
		e := watchEvent{Type: "MODIFIED", Object: p}
		if gone {
			e.Type = "DELETED"
		}
		// A client that takes nothing must not make us collect changes for ever.
		_ = flusher.SetWriteDeadline(time.Now().Add(writeTimeout))
		if err := enc.Encode(e); err != nil {
			return err
		}
		return flusher.Flush()
	})
}

func write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
