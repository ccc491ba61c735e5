package probe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// HTTP asks by a GET request. Plain HTTP goes over a connection of its own, read
// by net/http's parser: its client costs half as much again. HTTPS has that
// client, which also speaks HTTP/2.
type HTTP struct {
	version   string
	transport *http.Transport
	readers   sync.Pool // of *reader
}

// NewHTTP returns an HTTP prober that calls itself kube-probe/version.
func NewHTTP(version string) *HTTP {
	return &HTTP{
		version: version,
		transport: &http.Transport{
			DialContext:       (&net.Dialer{KeepAlive: -1}).DialContext,
			DisableKeepAlives: true, DisableCompression: true, ForceAttemptHTTP2: true,
			MaxResponseHeaderBytes: maxHeader,
			// A probe asks whether the container answers, not who it is (kubelet).
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		},
		readers: sync.Pool{New: func() any { return newReader() }},
	}
}

const (
	// maxHeader bounds the header of an answer, in bytes.
	maxHeader = 64 << 10
	// maxRedirects is how many redirects are followed (net/http's default).
	maxRedirects = 10
	// maxInterim is how many 1xx answers may come before the real one.
	maxInterim = 5
)

// request is an HTTP request that is made again and again.
type request struct {
	url     *url.URL
	header  http.Header // nil where the bytes are all that is needed
	host    string      // the Host header; "" that of the URL
	address string      // of plain HTTP
	bytes   []byte      // the same
}

// answer is what counts of a response.
type answer struct {
	code     int
	location string
	body     []byte // of a code that may need it
}

// probe is a success when the answer has a code of 200 to 399.
func (h *HTTP) probe(ctx context.Context, t *Target) Outcome {
	if t.request == nil {
		r, err := h.request(t)
		if err != nil {
			return Outcome{Err: err}
		}
		t.request = r
	}
	deadline := time.Now().Add(timeout(t.Probe))
	r := t.request
	for n := 0; ; n++ {
		a, err := h.ask(ctx, r, deadline)
		var broken bodyError
		switch {
		case errors.As(err, &broken):
			return Outcome{Err: err}
		case err != nil:
			return failed("Get %q: %s", r.url.Redacted(), timedOut(err))
		}
		next, err := r.follow(a, t.Probe.HTTPGet, h.version)
		switch {
		case err != nil:
			return failed("Get %q: %s", r.url.Redacted(), err)
		case next == nil || next.url.Hostname() != t.request.url.Hostname():
			return a.outcome()
		case n >= maxRedirects-1:
			return failed("Get %q: stopped after %d redirects", next.url.Redacted(), maxRedirects)
		}
		if err := next.encode(); err != nil {
			return failed("Get %q: %s", next.url.Redacted(), err)
		}
		r = next
	}
}

// outcome judges an answer that leads nowhere else.
func (a answer) outcome() Outcome {
	switch {
	case a.code < http.StatusOK || a.code >= http.StatusBadRequest:
		// Never the body: it comes from whatever host the pod has named.
		return failed("HTTP probe failed with statuscode: %d", a.code)
	case a.code >= http.StatusMultipleChoices:
		return Outcome{Result: Warning, Text: fmt.Sprintf("Probe terminated redirects, Response body: %s", a.body)}
	}
	return Outcome{Result: Success}
}

// request makes the request that the probe's spec describes.
func (h *HTTP) request(t *Target) (*request, error) {
	get := t.Probe.HTTPGet
	address, err := t.address(get.Host, get.Port)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(get.Path)
	if err != nil { // as kubelet: pass on what is no path
		u = &url.URL{Path: get.Path}
	}
	u.Scheme, u.Host = "http", address
	if get.Scheme == corev1.URISchemeHTTPS {
		u.Scheme = "https"
	}
	if u, err = url.Parse(u.String()); err != nil { // a path gets its slash so
		return nil, err
	}
	header := headerOf(get, h.version)
	r := &request{url: u, header: header, host: header.Get("Host")}
	if err := r.encode(); err != nil {
		return nil, err
	}
	if r.bytes != nil {
		r.header = nil // for as long as the container runs
	}
	return r, nil
}

// headerOf is the header of each request of the probe.
func headerOf(get *corev1.HTTPGetAction, version string) http.Header {
	header := http.Header{}
	for _, one := range get.HTTPHeaders {
		header.Add(one.Name, one.Value)
	}
	if _, own := header["User-Agent"]; !own {
		header.Set("User-Agent", "kube-probe/"+version)
	}
	if _, own := header["Accept"]; !own {
		header.Set("Accept", "*/*")
	} else if header.Get("Accept") == "" {
		header.Del("Accept")
	}
	return header
}

// encode has the bytes of a plain request at hand.
func (r *request) encode() error {
	switch r.url.Scheme {
	case "https":
		return nil
	case "http":
	default:
		return fmt.Errorf("unsupported protocol scheme %q", r.url.Scheme)
	}
	r.url.RawQuery = strings.ReplaceAll(r.url.RawQuery, " ", "%20") // a request line has three parts
	var b bytes.Buffer
	if err := r.http(context.Background()).Write(&b); err != nil {
		return err
	}
	r.bytes, r.address = b.Bytes(), r.url.Host
	if r.url.Port() == "" {
		r.address = net.JoinHostPort(r.url.Hostname(), "80")
	}
	return nil
}

func (r *request) http(ctx context.Context) *http.Request {
	out := &http.Request{Method: http.MethodGet, URL: r.url, Header: r.header, Host: r.host, Close: true}
	return out.WithContext(ctx)
}

// follow returns the request that the answer redirects to, or nil.
func (r *request) follow(a answer, get *corev1.HTTPGetAction, version string) (*request, error) {
	switch a.code {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil
	}
	if a.location == "" {
		return nil, nil
	}
	to, err := url.Parse(a.location)
	if err != nil {
		return nil, fmt.Errorf("failed to parse Location header %q: %w", a.location, err)
	}
	next := &request{url: r.url.ResolveReference(to), header: headerOf(get, version)}
	if !to.IsAbs() { // net/http: the name that was asked for goes on
		next.host = r.host
	}
	return next, nil
}

// ask makes one request.
func (h *HTTP) ask(ctx context.Context, r *request, deadline time.Time) (answer, error) {
	if r.url.Scheme == "https" {
		return h.askTLS(ctx, r, deadline)
	}
	d := net.Dialer{Deadline: deadline, KeepAlive: -1}
	c, err := d.DialContext(ctx, "tcp", r.address)
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	if err := c.SetDeadline(deadline); err != nil {
		return answer{}, err
	}
	if _, err := c.Write(r.bytes); err != nil {
		return answer{}, err
	}
	in := h.readers.Get().(*reader)
	defer h.readers.Put(in)
	return in.answer(c)
}

func (h *HTTP) askTLS(ctx context.Context, r *request, deadline time.Time) (answer, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	response, err := h.transport.RoundTrip(r.http(ctx))
	if err != nil {
		return answer{}, err
	}
	return readBody(response)
}

// reader reads an answer from a connection; it is used again and again.
type reader struct {
	limit    io.LimitedReader
	buffered *bufio.Reader
}

func newReader() *reader {
	r := &reader{}
	r.buffered = bufio.NewReader(&r.limit)
	return r
}

func (r *reader) answer(c io.Reader) (answer, error) {
	r.limit = io.LimitedReader{R: c, N: maxHeader + maxText}
	r.buffered.Reset(&r.limit)
	defer func() { r.limit.R = nil }()
	for range maxInterim + 1 {
		response, err := http.ReadResponse(r.buffered, nil)
		if err != nil {
			if r.limit.N <= 0 {
				err = errors.New("the header is too large")
			}
			return answer{}, err
		}
		if response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols {
			return readBody(response)
		}
	}
	return answer{}, errors.New("too many 1xx informational responses")
}

// readBody reads up to 10 KiB of the body; more of it is no error (kubelet).
func readBody(response *http.Response) (answer, error) {
	defer response.Body.Close()
	a := answer{code: response.StatusCode, location: response.Header.Get("Location")}
	var err error
	if limited := io.LimitReader(response.Body, maxText); a.code >= 300 && a.code < 400 {
		a.body, err = io.ReadAll(limited)
	} else {
		_, err = io.Copy(io.Discard, limited)
	}
	if err != nil {
		return answer{}, bodyError{err}
	}
	return a, nil
}

// bodyError is a body that breaks off: kubelet throws such a probe away.
type bodyError struct{ error }

func (e bodyError) Unwrap() error { return e.error }

// timedOut says of a deadline that has passed what net/http's client says.
func timedOut(err error) string {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
	}
	return err.Error()
}
