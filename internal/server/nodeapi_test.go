package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	authnv1 "k8s.io/api/authentication/v1"
	authzv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"nodeagent/internal/pod"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

var serial = big.NewInt(1)

func newAuthority(t testing.TB, name string) *authority {
	a := &authority{}
	a.cert, a.key = a.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	})
	return a
}

func (a *authority) sign(t testing.TB, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial.Add(serial, big.NewInt(1))
	c.SerialNumber = new(big.Int).Set(serial)
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return signed, key
}

// issue makes a certificate of somebody that holds until end.
func (a *authority) issue(t testing.TB, name string, usage x509.ExtKeyUsage, end time.Time) tls.Certificate {
	c, key := a.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name, Organization: []string{"system:masters"}}, ExtKeyUsage: []x509.ExtKeyUsage{usage},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: end, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
}

func (a *authority) client(t testing.TB, name string) tls.Certificate {
	return a.issue(t, name, x509.ExtKeyUsageClientAuth, time.Now().Add(time.Hour))
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// reviewer is an API server that answers reviews.
type reviewer struct {
	*httptest.Server

	mu     sync.Mutex
	tokens map[string]string // names of users
	may    func(authzv1.SubjectAccessReviewSpec) bool
	fault  func(w http.ResponseWriter, r *http.Request) // instead of an answer
	asked  []authzv1.SubjectAccessReviewSpec
	shown  []string // tokens
}

func newReviewer(t testing.TB) *reviewer {
	v := &reviewer{tokens: map[string]string{}, may: func(s authzv1.SubjectAccessReviewSpec) bool { return s.User == "boss" }}
	v.Server = httptest.NewServer(v)
	t.Cleanup(v.Close)
	return v
}

func (v *reviewer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fault != nil {
		v.fault(w, r)
		return
	}
	var answer any
	switch r.Method + r.URL.Path {
	case "POST/apis/authentication.k8s.io/v1/tokenreviews":
		review := &authnv1.TokenReview{}
		if json.NewDecoder(r.Body).Decode(review) != nil || review.Kind != "TokenReview" {
			http.Error(w, "no review", http.StatusBadRequest)
			return
		}
		v.shown = append(v.shown, review.Spec.Token)
		if name, ok := v.tokens[review.Spec.Token]; ok {
			review.Status = authnv1.TokenReviewStatus{Authenticated: true, User: authnv1.UserInfo{Username: name, Groups: []string{groupAuthenticated}}}
		}
		answer = review
	case "POST/apis/authorization.k8s.io/v1/subjectaccessreviews":
		review := &authzv1.SubjectAccessReview{}
		if json.NewDecoder(r.Body).Decode(review) != nil || review.Kind != "SubjectAccessReview" {
			http.Error(w, "no review", http.StatusBadRequest)
			return
		}
		v.asked = append(v.asked, review.Spec)
		review.Status.Allowed = v.may(review.Spec)
		answer = review
	default:
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(answer)
}

func (v *reviewer) set(change func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change()
}

func (v *reviewer) questions() (rights []authzv1.SubjectAccessReviewSpec, tokens []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.asked), slices.Clone(v.shown)
}

// fakeNode has pods and runs of their containers.
type fakeNode struct {
	mu     sync.Mutex
	all    []*corev1.Pod
	states map[types.UID]pod.RuntimeState
	wake   []chan *corev1.Pod
}

func (n *fakeNode) Pods() []*corev1.Pod {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.all)
}

func (n *fakeNode) Watch(ctx context.Context, tell func(*corev1.Pod, bool) error) error {
	changed := make(chan *corev1.Pod, 16)
	n.mu.Lock()
	n.wake = append(n.wake, changed)
	all := slices.Clone(n.all)
	n.mu.Unlock()
	for _, p := range all { // it begins with all
		if err := tell(p, false); err != nil {
			return err
		}
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case p := <-changed:
			if err := tell(p, false); err != nil {
				return err
			}
		}
	}
}

func (n *fakeNode) Observe(uid types.UID) pod.RuntimeState {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.states[uid]
}

// end ends all containers of a pod and tells of it.
func (n *fakeNode) end(p *corev1.Pod) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.states[p.UID]
	s.Containers = slices.Clone(s.Containers)
	for i := range s.Containers {
		s.Containers[i].State = pod.ContainerExited
	}
	n.states[p.UID] = s
	for _, w := range n.wake {
		w <- p
	}
}

// lockedBuffer takes the log, also from connections that end after the server.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// bed is a node API that listens, and who may be asked about it.
type bed struct {
	*NodeAPI
	reviewer *reviewer
	node     *fakeNode
	ca       *authority // of clients
	caFile   string
	serving  *authority
	log      *lockedBuffer
	url      string
	stop     func() error
}

func newBed(t testing.TB, change func(*NodeAPIConfig)) *bed {
	t.Helper()
	b := &bed{
		reviewer: newReviewer(t), node: &fakeNode{states: map[types.UID]pod.RuntimeState{}},
		ca: newAuthority(t, "clients"), serving: newAuthority(t, "serving"), log: &lockedBuffer{},
		caFile: filepath.Join(t.TempDir(), "ca.crt"),
	}
	if err := os.WriteFile(b.caFile, b.ca.pem(), 0o600); err != nil {
		t.Fatal(err)
	}
	reviews, err := NewReviews(&rest.Config{Host: b.reviewer.URL}, b.reviewer.Client())
	if err != nil {
		t.Fatal(err)
	}
	own := b.serving.issue(t, "node", x509.ExtKeyUsageServerAuth, time.Now().Add(time.Hour))
	cfg := NodeAPIConfig{
		Addr: "127.0.0.1:0", NodeName: "n1", ClientCAFile: b.caFile, Tokens: reviews, Access: reviews,
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &own, nil },
		Pods:        b.node, Runtime: b.node, Kubelet: func() *kubeletv1beta1.KubeletConfiguration { return &kubeletv1beta1.KubeletConfiguration{} },
		Logger: slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	if b.NodeAPI, err = NewNodeAPI(cfg); err != nil {
		t.Fatal(err)
	}
	return b
}

// run serves until the test ends.
func (b *bed) run(t testing.TB) *bed {
	t.Helper()
	if err := b.Listen(); err != nil {
		t.Fatal(err)
	}
	b.url = "https://" + b.conns.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	b.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := b.stop(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// client speaks HTTP/2 where both can; certs may be none.
func (b *bed) client(t testing.TB, h2 bool, certs ...tls.Certificate) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(b.serving.cert)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certs}, ForceAttemptHTTP2: h2}
	if !h2 {
		tr.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (b *bed) boss(t testing.TB) *http.Client { return b.client(t, true, b.ca.client(t, "boss")) }

type answer struct {
	code  int
	body  string
	proto int
	head  http.Header
}

func ask(t testing.TB, c *http.Client, method, url string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return answer{resp.StatusCode, string(text), resp.ProtoMajor, resp.Header}
}
