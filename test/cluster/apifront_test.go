package cluster_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nodeagent/test/bed"
)

const frontPort = "6444"

// front stands between a daemon and the API server, with the certificate of the one
// and of the other, and lets go wrong what a network or a server can. What it does
// not touch, the real server answers.
type front struct {
	bed    *bed.Bed
	server *http.Server
	to     *url.URL
	node   http.RoundTripper // as the node
	admin  http.RoundTripper // as who may do anything

	refuse, hole atomic.Bool

	mu    sync.Mutex
	open  map[*frontConn]bool
	fault func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
}

// newFront starts one in the bed of n, and returns it with the kubeconfig of a node
// that goes through it.
func newFront(n *node) (*front, string) {
	t := n.t
	t.Helper()
	file, err := n.c.Node("node")
	if err != nil {
		t.Fatal(err)
	}
	to, err := url.Parse(n.c.Server())
	if err != nil {
		t.Fatal(err)
	}
	f := &front{bed: n.bed, to: to, open: map[*frontConn]bool{}}
	f.node, f.admin = f.transport(t, n.c.CA(), file), f.transport(t, n.c.CA(), n.c.Admin())
	var l net.Listener
	err = n.bed.Do(func() (err error) { l, err = net.Listen("tcp", net.JoinHostPort(bed.NodeIP, frontPort)); return err })
	if err != nil {
		t.Fatal(err)
	}
	pki := filepath.Dir(n.c.CA())
	pair, err := tls.LoadX509KeyPair(filepath.Join(pki, "apiserver.crt"), filepath.Join(pki, "apiserver.key"))
	if err != nil {
		t.Fatal(err)
	}
	f.server = &http.Server{Handler: f, ErrorLog: log.New(io.Discard, "", 0), TLSConfig: &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2", "http/1.1"}}}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = f.server.ServeTLS(frontListener{l, f}, "", "") }()
	t.Cleanup(func() {
		_ = f.server.Close()
		<-ended
		f.node.(*http.Transport).CloseIdleConnections()
		f.admin.(*http.Transport).CloseIdleConnections()
	})
	return f, f.through(t, file)
}

// through is a copy of a kubeconfig that goes through the front.
func (f *front) through(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out := strings.TrimSuffix(file, ".kubeconfig") + "-front.kubeconfig"
	changed := strings.ReplaceAll(string(text), f.to.Host, net.JoinHostPort(bed.NodeIP, frontPort))
	if err := os.WriteFile(out, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// transport asks the API server as who a kubeconfig is of.
func (f *front) transport(t *testing.T, ca, file string) *http.Transport {
	t.Helper()
	pair, err := kubeconfigPair(file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return &http.Transport{DialContext: f.bed.Connect, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}}
}

// ServeHTTP lets a request go wrong, or has the API server answer it.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	fault := f.fault
	f.mu.Unlock()
	if fault != nil && fault(w, r) {
		return
	}
	f.forward(w, r, f.node)
}

func (f *front) forward(w http.ResponseWriter, r *http.Request, as http.RoundTripper) {
	p := httputil.ReverseProxy{
		Rewrite:   func(p *httputil.ProxyRequest) { p.SetURL(f.to) },
		Transport: as, FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0),
	}
	p.ServeHTTP(w, r)
}

// breaks sets what becomes of requests from now on; nil: what the API server says.
func (f *front) breaks(fault func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// cut ends the connections of now; stall lets them carry nothing more.
func (f *front) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.open {
		_ = c.Conn.Close()
	}
}

func (f *front) stall() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.open {
		c.frozen.Store(true)
	}
}

// says answers every request with a code.
func says(code int, header ...string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		if len(header) > 0 {
			w.Header().Set(header[0], header[1])
		}
		w.WriteHeader(code)
		return true
	}
}

// forgotten is what a server says that does not know a version any more.
func forgotten(w http.ResponseWriter) bool {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusGone)
	_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Code: http.StatusGone, Reason: metav1.StatusReasonExpired, Message: "too old resource version"})
	return true
}

// slow holds each request back for a while.
func slow(d time.Duration) func(http.ResponseWriter, *http.Request) bool {
	return func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-time.After(d):
			return false
		case <-r.Context().Done():
			return true
		}
	}
}

type frontListener struct {
	net.Listener
	f *front
}

// Accept takes the next connection that is not refused.
func (l frontListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.f.refuse.Load() {
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
			continue
		}
		w := &frontConn{Conn: c, f: l.f}
		w.frozen.Store(l.f.hole.Load())
		l.f.mu.Lock()
		l.f.open[w] = true
		l.f.mu.Unlock()
		return w, nil
	}
}

// frontConn is a connection that may carry nothing any more.
type frontConn struct {
	net.Conn
	f      *front
	frozen atomic.Bool
}

func (c *frontConn) Write(b []byte) (int, error) {
	if c.frozen.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *frontConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.frozen.Load() {
			return n, err
		}
	}
}

func (c *frontConn) Close() error {
	c.f.mu.Lock()
	delete(c.f.open, c)
	c.f.mu.Unlock()
	return c.Conn.Close()
}
