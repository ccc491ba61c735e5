package cert

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"
)

// line is a way to the API server that stays right: each request takes the
// server and the credentials of that moment. When they change, the connections
// that were opened with the old ones are closed, so that long watches do not
// live on with a certificate that is out of date.
type line struct {
	given *url.URL // what requests are addressed to
	id    func() *identity
	dial  func(ctx context.Context, network, address string) (net.Conn, error)
	asked func(method, host string, code int, took time.Duration) // nil: nobody counts

	mu sync.Mutex
	on *wired // nil before the first request
}

// identity is a login with the certificate that goes with it.
type identity struct {
	login *login
	pair  *pair
	base  *url.URL
}

// wired is a line's connections by one identity.
type wired struct {
	id     *identity
	rt     http.RoundTripper
	dialer *connrotation.Dialer
	closed atomic.Bool
}

// errNoIdentity: requests fail at once instead of hanging, and Client.Ready tells
// when there is a point in making some.
var errNoIdentity = errors.New("there are no credentials for the API server yet")

// RoundTrip sends a request to the server of now.
func (l *line) RoundTrip(r *http.Request) (*http.Response, error) {
	w, err := l.wire()
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, err
	}
	if l.asked == nil {
		return w.rt.RoundTrip(l.address(r, w.id.base))
	}
	begun, code := time.Now(), 0
	resp, err := w.rt.RoundTrip(l.address(r, w.id.base))
	if err == nil {
		code = resp.StatusCode
	}
	l.asked(r.Method, w.id.base.Host, code, time.Since(begun))
	return resp, err
}

// address returns r as the server of now is to get it.
func (l *line) address(r *http.Request, base *url.URL) *http.Request {
	if *base == *l.given {
		return r
	}
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host, r.Host = base.Scheme, base.Host, ""
	r.URL.Path = base.Path + strings.TrimPrefix(r.URL.Path, l.given.Path)
	r.URL.RawPath = ""
	return r
}

// CloseIdleConnections is what client-go and net/http look for.
func (l *line) CloseIdleConnections() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.on != nil {
		closeIdle(l.on.rt)
	}
}

func closeIdle(rt http.RoundTripper) {
	(&http.Client{Transport: rt}).CloseIdleConnections()
}

// reconnect closes all connections: what is under way on them fails.
func (l *line) reconnect() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.on != nil {
		l.on.dialer.CloseAll()
	}
}

// follow closes what another identity has opened, after a change.
func (l *line) follow(id *identity) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.on != nil && l.on.id != id {
		l.on.close()
		l.on = nil
	}
}

// close also closes what is being opened while it runs: see dial.
func (w *wired) close() {
	w.closed.Store(true)
	w.dialer.CloseAll()
	closeIdle(w.rt)
}

// wire returns the connections by the identity of now. That is read under the
// lock, so that follow, which comes after a change, misses none.
func (l *line) wire() (*wired, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := l.id()
	if id == nil {
		return nil, errNoIdentity
	}
	if l.on != nil && l.on.id == id {
		return l.on, nil
	}
	w, err := connect(id, l.dial)
	if err != nil {
		return nil, err
	}
	if l.on != nil {
		l.on.close()
	}
	l.on = w
	return w, nil
}

// connect makes the transport of an identity; it opens no connection.
func connect(id *identity, dial func(context.Context, string, string) (net.Conn, error)) (*wired, error) {
	cfg := rest.CopyConfig(id.login.rest)
	if id.pair != nil {
		cfg.CertData, cfg.KeyData = id.pair.cert, id.pair.key
	}
	w := &wired{id: id, dialer: connrotation.NewDialer(dial)}
	cfg.Dial = w.dial
	if cfg.Proxy == nil {
		// The usual one, but said: client-go keeps transports with a proxy
		// function out of its cache, where they would stay for ever.
		cfg.Proxy = http.ProxyFromEnvironment
	}
	var err error
	if w.rt, err = rest.TransportFor(cfg); err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	return w, nil
}

// dial opens a connection, unless the identity has changed meanwhile.
func (w *wired) dial(ctx context.Context, network, address string) (net.Conn, error) {
	// The transport goes on with a connection whose request was given up.
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	conn, err := w.dialer.DialContext(ctx, network, address)
	if err == nil && w.closed.Load() {
		_ = conn.Close()
		return nil, errors.New("the credentials have changed; try again")
	}
	return conn, err
}

// connectLimit bounds the making of a connection.
const connectLimit = 30 * time.Second

func dialer() func(context.Context, string, string) (net.Conn, error) {
	return (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext
}
