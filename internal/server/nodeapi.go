package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"k8s.io/apimachinery/pkg/types"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"nodeagent/internal/pod"
)

// Runtime is what the container runtime holds of a pod.
type Runtime interface {
	Observe(uid types.UID) pod.RuntimeState
}

// NodeAPIConfig says what the node API shows, and to whom.
type NodeAPIConfig struct {
	Addr     string // 0.0.0.0:10250
	NodeName string // the name that rights are asked for
	Version  string // of this program, for /statusz

	// Certificate is the serving certificate of this moment.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// MinVersion is a tls.VersionTLS…; 0: 1.3. CipherSuites are for 1.2 only;
	// none: Go's choice.
	MinVersion   uint16
	CipherSuites []uint16

	// ClientCAFile holds the authorities of client certificates; "": none counts.
	// It is read anew when it changes.
	ClientCAFile string
	// Tokens judges bearer tokens; nil: none counts. Access judges rights.
	Tokens TokenReviewer
	Access AccessReviewer
	// How long an answer holds: of a good token (kubelet: 2 min), of a right
	// (5 min), and of a right that is not there (30 s). Zero: as kubelet.
	TokenTTL, AllowedTTL, DeniedTTL time.Duration

	Pods    Pods
	Runtime Runtime
	Checks  Checks
	// Streams is for exec, attach, port-forward and run; nil: there are none.
	// StreamIdle is how long one may be silent; zero: four hours, as kubelet.
	Streams    Streams
	StreamIdle time.Duration
	// LogDir is what is served at /logs; "": nothing is.
	LogDir string
	// Journal is what /logs/?query=… reads; nil: a query says nothing.
	Journal Journal
	// Kubelet is the merged configuration, for /configz.
	Kubelet func() *kubeletv1beta1.KubeletConfiguration
	// Metrics are written in Prometheus' text format: "" at /metrics, any other
	// at /metrics/<name>.
	Metrics map[string]func(context.Context, io.Writer) error
	// Count, if set, is told of each request that begins, and returns what is called
	// when it ends. Its words are of the table of paths and of this package, never a
	// client's.
	Count func(method, path string, long bool) (ended func())
	// Summary is what the node and its pods use, or with brief only of processors and
	// memory; nil: nobody tells.
	Summary func(ctx context.Context, brief bool) (any, error)
	Logger  *slog.Logger

	limits limits // zero: the usual ones
}

// limits bound what clients can make the daemon hold.
type limits struct {
	conns, strangers         int // connections: all, and those that have no right yet
	requests, userRequests   int // short requests under way: all, and of one user
	streams, userStreams     int // long ones, as logs that are followed
	header, request, written time.Duration
}

func (l limits) orUsual() limits {
	if l != (limits{}) {
		return l
	}
	return limits{
		conns: 1024, strangers: 256,
		requests: 128, userRequests: 64,
		// One user is the API server, for all people behind it.
		streams: 512, userStreams: 384,
		header: headerTimeout, request: writeTimeout, written: writeTimeout,
	}
}

// maxBody is more than any request has to say in its body.
const maxBody = 64 << 10

// idleConn is how long a connection may rest between two requests; the API
// server keeps its own for 90 s.
const idleConn = 2 * time.Minute

// maxConnStreams bounds the requests at a time on one HTTP/2 connection; a
// client that wants more opens another one.
const maxConnStreams = 64

// NodeAPI is the API that the control plane asks of a node.
type NodeAPI struct {
	cfg       NodeAPIConfig
	limits    limits
	authn     *authenticator
	authz     *authorizer
	outage    *outage
	conns     *conns
	requests  *gate
	streams   *gate
	followers followers
	routes    map[string]route
	began     time.Time
}

// NewNodeAPI returns a server that does not listen yet.
func NewNodeAPI(cfg NodeAPIConfig) (*NodeAPI, error) {
	switch {
	case cfg.Access == nil:
		return nil, errors.New("configure the node API: nobody judges rights: the connection to the API server is missing")
	case cfg.ClientCAFile == "" && cfg.Tokens == nil:
		return nil, errors.New("configure the node API: nobody could be known: set authentication.x509.clientCAFile or enable authentication.webhook")
	case cfg.Certificate == nil, cfg.NodeName == "", cfg.Pods == nil, cfg.Runtime == nil, cfg.Logger == nil, cfg.Kubelet == nil:
		return nil, errors.New("configure the node API: certificate, node name, pods, runtime, configuration and logger are needed")
	}
	if cfg.MinVersion == 0 {
		cfg.MinVersion = tls.VersionTLS13 // kubelet: 1.2
	}
	l, o := cfg.limits.orUsual(), &outage{log: cfg.Logger}
	a := &NodeAPI{
		cfg: cfg, limits: l, outage: o, began: time.Now(),
		authn:    newAuthenticator(cfg, o),
		authz:    newAuthorizer(cfg, o),
		conns:    newConns(l.conns, l.strangers),
		requests: newGate(l.requests, l.userRequests),
		streams:  newGate(l.streams, l.userStreams),
	}
	a.followers.running = a.running
	a.routes = a.table()
	return a, nil
}

// Listen opens the port; Run answers on it.
func (a *NodeAPI) Listen() error {
	l, err := net.Listen("tcp", a.cfg.Addr)
	if err != nil {
		return fmt.Errorf("open the node API's port: %w; is a kubelet running here?", err)
	}
	a.conns.Listener = l
	return nil
}

// Run serves until ctx ends. Listen comes first.
func (a *NodeAPI) Run(ctx context.Context) error {
	secure := a.tls()
	server := &http.Server{
		Handler: a, TLSConfig: secure,
		ReadHeaderTimeout: a.limits.header, ReadTimeout: a.limits.request, IdleTimeout: idleConn, MaxHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxConnStreams, MaxReadFrameSize: 16 << 10,
			MaxReceiveBufferPerConnection: 64 << 10, MaxReceiveBufferPerStream: 64 << 10,
			WriteByteTimeout: a.limits.written,
		},
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: withConn,
		// What strangers do to a port is no news.
		ErrorLog: slog.NewLogLogger(a.cfg.Logger.Handler(), slog.LevelDebug),
	}
	ended := make(chan struct{})
	go func() { // ends with ctx
		defer close(ended)
		// It returns at ctx's end only: tell never fails.
		_ = a.cfg.Pods.Watch(ctx, a.followers.tell)
	}()
	err := serve(ctx, server, tls.NewListener(a.conns, secure))
	if ctx.Err() != nil {
		<-ended
	}
	return err
}

func (a *NodeAPI) tls() *tls.Config {
	return &tls.Config{
		GetCertificate: a.cfg.Certificate,
		MinVersion:     a.cfg.MinVersion, CipherSuites: a.cfg.CipherSuites,
		// Whether it is good is judged at each request, so that neither a
		// connection nor a session outlives a certificate or its authority.
		ClientAuth: tls.RequestClientCert,
		NextProtos: []string{"h2", "http/1.1"},
	}
}

// ServeHTTP implements http.Handler: who asks, whether they may, and only then
// whether there is such a thing.
func (a *NodeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer a.caught(r)
	if r.Header.Get("Upgrade") != "" {
		u := &upgrading{ResponseWriter: w}
		defer u.over()
		w = u
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(2*reviewTimeout + a.limits.request))
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	rt, args, known := a.route(r.URL.Path)
	if a.cfg.Count != nil {
		defer a.cfg.Count(a.bucket(r, known))()
	}
	user, ok := a.authenticate(w, r)
	if !ok || !a.authorize(w, r, user, rt) {
		return
	}
	proven(r.Context())
	switch {
	case !known || rt.handle == nil:
		http.Error(w, "404 page not found", http.StatusNotFound)
		return
	case !rt.allows(r.Method):
		w.Header().Set("Allow", rt.allow())
		http.Error(w, "405 method not allowed", http.StatusMethodNotAllowed)
		return
	}
	door := a.requests
	if rt.stream {
		door = a.streams
	}
	leave, ok := door.enter(user.Username)
	if !ok {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many requests at a time on this node: try again", http.StatusTooManyRequests)
		return
	}
	defer leave()
	rt.handle(w, r, args)
}

// caught tells of a fault of ours, which net/http would tell to nobody.
func (a *NodeAPI) caught(r *http.Request) {
	fault := recover()
	if fault == nil {
		return
	}
	if err, ok := fault.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
		a.cfg.Logger.Error("a request to the node API met a fault of this program", "method", r.Method, "path", r.URL.Path,
			"fault", fault, "stack", string(debug.Stack()))
	}
	panic(http.ErrAbortHandler) // the client must not take half an answer for a whole one
}
