// Package certtest holds an API server that knows certificate signing requests
// and who asks: it checks client certificates and tokens, signs as the
// controller-manager does, and answers over real TLS on connections in memory, so
// that it works in the time of testing/synctest too. Any goroutine may use it.
package certtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	certsv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Token is the one that may ask for first certificates.
const Token = "abcdef.0123456789abcdef"

// Answer is what becomes of a signing request.
type Answer int

// Answers.
const (
	Sign Answer = iota
	Hold
	Deny
	Lose // the request is made, but nobody is told
)

// API is the server.
type API struct {
	CAPEM []byte
	Life  time.Duration // of what is signed
	Skew  time.Duration // of the server's clock, in what is signed
	// Other answers what is not about certificates; nil: 404. Set it before use.
	Other http.Handler

	ca    *x509.Certificate
	key   *ecdsa.PrivateKey
	roots *x509.CertPool
	srv   *http.Server
	conns chan net.Conn
	done  chan struct{}

	mu      sync.Mutex
	answer  Answer
	away    bool
	reject  bool // certificates are not taken
	version int
	serial  int64
	objects map[string]*certsv1.CertificateSigningRequest
	changed chan struct{} // closed at each change
	calls   []string
	dials   int
}

// New starts a server. It ends with Close.
func New() *API {
	a := &API{
		Life: time.Hour, objects: map[string]*certsv1.CertificateSigningRequest{},
		changed: make(chan struct{}), conns: make(chan net.Conn), done: make(chan struct{}),
	}
	a.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubernetes"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		panic(err)
	}
	a.ca, _ = x509.ParseCertificate(der)
	a.serial = 1
	a.roots = x509.NewCertPool()
	a.roots.AddCert(a.ca)
	a.CAPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	own := a.Issue(key.Public(), pkix.Name{CommonName: "kube-apiserver"}, 10*365*24*time.Hour, []string{"api.test"}, nil)
	block, _ := pem.Decode(own)
	a.srv = &http.Server{
		Handler:  a,
		ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{block.Bytes}, PrivateKey: key}},
			ClientAuth:   tls.RequestClientCert,
		},
	}
	go func() { _ = a.srv.ServeTLS(listener{a}, "", ""); close(a.done) }()
	return a
}

// Close ends the server and its connections.
func (a *API) Close() {
	_ = a.srv.Close()
	<-a.done
}

// Dial is for clients.
func (a *API) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	a.mu.Lock()
	a.dials++
	away := a.away
	a.mu.Unlock()
	if away {
		return nil, errors.New("connection refused")
	}
	ours, theirs := net.Pipe()
	select {
	case a.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type listener struct{ a *API }

func (l listener) Accept() (net.Conn, error) {
	c, ok := <-l.a.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (l listener) Close() error {
	defer func() { _ = recover() }() // http closes a listener more than once
	close(l.a.conns)
	return nil
}

func (l listener) Addr() net.Addr { return &net.UnixAddr{Name: "api.test", Net: "unix"} }

// Issue signs for a public key.
func (a *API) Issue(public any, subject pkix.Name, life time.Duration, dns []string, ips []net.IP) []byte {
	a.serial++
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), Subject: subject, DNSNames: dns, IPAddresses: ips,
		NotBefore: time.Now().Add(a.Skew), NotAfter: time.Now().Add(a.Skew + life), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, a.ca, public, a.key)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// Set says what becomes of requests from now on, those that wait included.
func (a *API) Set(answer Answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
	for _, o := range a.objects {
		a.decide(o)
	}
}

// Away refuses new connections.
func (a *API) Away(is bool) { a.mu.Lock(); a.away = is; a.mu.Unlock() }

// Reject makes the server take no client certificates.
func (a *API) Reject(is bool) { a.mu.Lock(); a.reject = is; a.mu.Unlock() }

// Forget removes all requests, as the cluster's cleaner does.
func (a *API) Forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.objects)
	a.tell()
}

// Requests are all signing requests.
func (a *API) Requests() []certsv1.CertificateSigningRequest {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []certsv1.CertificateSigningRequest
	for _, o := range a.objects {
		all = append(all, *o.DeepCopy())
	}
	return all
}

// Calls are "METHOD path user" of all requests, in order.
func (a *API) Calls() []string { a.mu.Lock(); defer a.mu.Unlock(); return slices.Clone(a.calls) }

// Dials counts the connections that were tried.
func (a *API) Dials() int { a.mu.Lock(); defer a.mu.Unlock(); return a.dials }

func (a *API) tell() {
	a.version++
	close(a.changed)
	a.changed = make(chan struct{})
}

// decide answers a request that waits.
func (a *API) decide(o *certsv1.CertificateSigningRequest) {
	if len(o.Status.Conditions) > 0 {
		return
	}
	condition := certsv1.CertificateSigningRequestCondition{Type: certsv1.CertificateApproved, Status: "True", Reason: "Test"}
	switch a.answer {
	case Hold:
		return
	case Deny:
		condition.Type, condition.Message = certsv1.CertificateDenied, "not today"
	default:
		block, _ := pem.Decode(o.Spec.Request)
		r, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil || r.CheckSignature() != nil {
			condition.Type = certsv1.CertificateFailed
			break
		}
		o.Status.Certificate = a.Issue(r.PublicKey, r.Subject, a.Life, r.DNSNames, r.IPAddresses)
	}
	o.Status.Conditions = append(o.Status.Conditions, condition)
	a.tell()
	o.ResourceVersion = strconv.Itoa(a.version)
}

// who is the user of a request, or "".
func (a *API) who(r *http.Request) string {
	if r.Header.Get("Authorization") == "Bearer "+Token {
		return "bootstrap"
	}
	if a.reject || r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return ""
	}
	leaf := r.TLS.PeerCertificates[0]
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: a.roots, CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return ""
	}
	return leaf.Subject.CommonName + "#" + leaf.SerialNumber.String()
}

const path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	user := a.who(r)
	if a.Other == nil { // else they are many, and somebody else's
		a.calls = append(a.calls, r.Method+" "+r.URL.Path+" "+user)
	}
	a.mu.Unlock()
	name := strings.Trim(strings.TrimPrefix(r.URL.Path, path), "/")
	switch {
	case user == "":
		fail(w, 401, metav1.StatusReasonUnauthorized)
	case r.URL.Path == "/whoami":
		_, _ = io.WriteString(w, user)
	case r.URL.Path == "/hang":
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	case !strings.HasPrefix(r.URL.Path, path) && a.Other != nil:
		a.Other.ServeHTTP(w, r)
	case !strings.HasPrefix(r.URL.Path, path):
		fail(w, 404, metav1.StatusReasonNotFound)
	case r.Method == "POST":
		a.create(w, r, user)
	case r.URL.Query().Get("watch") != "":
		a.watch(w, r)
	default:
		a.get(w, name)
	}
}

func (a *API) get(w http.ResponseWriter, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if o := a.objects[name]; o != nil {
		reply(w, 200, o)
		return
	}
	fail(w, 404, metav1.StatusReasonNotFound)
}

func (a *API) create(w http.ResponseWriter, r *http.Request, user string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := &certsv1.CertificateSigningRequest{}
	if err := json.NewDecoder(r.Body).Decode(o); err != nil || o.Name == "" {
		fail(w, 400, metav1.StatusReasonBadRequest)
		return
	}
	if a.objects[o.Name] != nil {
		fail(w, 409, metav1.StatusReasonAlreadyExists)
		return
	}
	o.Spec.Username = user
	a.objects[o.Name] = o
	a.tell()
	o.ResourceVersion = strconv.Itoa(a.version)
	if a.answer == Lose {
		a.answer = Sign
		a.decide(o)
		fail(w, 500, metav1.StatusReasonInternalError)
		return
	}
	a.decide(o)
	reply(w, 201, o)
}

func (a *API) watch(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	seconds, _ := strconv.Atoi(r.URL.Query().Get("timeoutSeconds"))
	end := time.NewTimer(time.Duration(seconds) * time.Second)
	defer end.Stop()
	since := r.URL.Query().Get("resourceVersion")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(200)
	w.(http.Flusher).Flush()
	for {
		a.mu.Lock()
		o, changed := a.objects[name], a.changed
		var event any
		if o == nil {
			event = map[string]any{"type": "DELETED", "object": typed(&certsv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: name}})}
		} else if o.ResourceVersion != since {
			event, since = map[string]any{"type": "MODIFIED", "object": typed(o)}, o.ResourceVersion
		}
		text, _ := json.Marshal(event)
		a.mu.Unlock()
		if event != nil {
			_, _ = w.Write(text)
			w.(http.Flusher).Flush()
		}
		if o == nil {
			return
		}
		select {
		case <-changed:
		case <-end.C:
			return
		case <-r.Context().Done():
			return
		}
	}
}

func typed(o *certsv1.CertificateSigningRequest) *certsv1.CertificateSigningRequest {
	o = o.DeepCopy()
	o.TypeMeta = metav1.TypeMeta{APIVersion: "certificates.k8s.io/v1", Kind: "CertificateSigningRequest"}
	return o
}

func reply(w http.ResponseWriter, code int, o *certsv1.CertificateSigningRequest) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(typed(o))
}

func fail(w http.ResponseWriter, code int32, reason metav1.StatusReason) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(code))
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: code, Reason: reason, Message: string(reason),
	})
}
