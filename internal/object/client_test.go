package object

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"nodeagent/internal/object/objecttest"
	"nodeagent/internal/pod"
	"nodeagent/internal/test/need"
)

// wire is a Store on an API server over HTTP.
type wire struct {
	t     *testing.T
	store *Store
	news  chan pod.ObjectRef
}

// dial starts a Store that talks to the server at address; json: not protobuf.
func dial(t *testing.T, address string, json bool) *wire {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	client, err := NewClient(&rest.Config{Host: address}, &http.Client{Transport: accepting{transport, json}})
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{t: t, news: make(chan pod.ObjectRef, 4096)}
	w.store, err = New(Config{API: client, Changed: func(r pod.ObjectRef) { w.news <- r }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { _ = w.store.Run(ctx); close(done) }()
	t.Cleanup(func() {
		cancel()
		<-done
		transport.CloseIdleConnections()
	})
	return w
}

// accepting may take the wish for protobuf out of requests.
type accepting struct {
	http.RoundTripper
	json bool
}

func (a accepting) RoundTrip(r *http.Request) (*http.Response, error) {
	if a.json {
		r.Header.Set("Accept", "application/json")
	}
	return a.RoundTripper.RoundTrip(r)
}

// wait waits until the ConfigMap's key has the value, woken as a pod is.
func (w *wire) wait(what, name, want string) {
	w.t.Helper()
	limit := time.After(time.Minute)
	for {
		got := ""
		m, err := w.store.ConfigMap("ns", name)
		switch {
		case apierrors.IsNotFound(err):
			got = "none"
		case err != nil:
			got = "unknown"
		default:
			got = m.Data["k"]
		}
		if got == want {
			return
		}
		select {
		case <-w.news:
		case <-limit:
			w.t.Fatalf("%s: %s is %q, %v, want %q", what, name, got, err, want)
		}
	}
}

// TestWire: the real client against the protocol, in both encodings and with
// servers of both ages: what comes, changes and goes, over watches that are cut in
// the middle of an event and versions that were compacted.
func TestWire(t *testing.T) {
	for _, json := range []bool{false, true} {
		for _, old := range []bool{false, true} {
			t.Run(fmt.Sprintf("json=%v,old=%v", json, old), func(t *testing.T) {
				var cut atomic.Bool
				server := &objecttest.Server{Old: old}
				h := httptest.NewServer(server.Handler(func() bool { return cut.CompareAndSwap(true, false) }))
				t.Cleanup(h.Close)
				w := dial(t, h.URL, json)
				server.Put(configMap("a", "1"))
				p := user("one", "a", "none")
				w.store.Keep([]*corev1.Pod{p})
				w.store.Await(t.Context(), p)
				w.wait("at first", "a", "1")
				w.wait("at first", "none", "none")
				server.Put(configMap("a", "2"))
				w.wait("an update", "a", "2")
				server.Put(configMap("none", "1"))
				w.wait("it came", "none", "1")
				for i := range 3 {
					cut.Store(true)
					server.Put(configMap("a", fmt.Sprint("cut", i)))
					w.wait("a watch is cut", "a", fmt.Sprint("cut", i))
				}
				server.Break(apierrors.NewResourceExpired("too old resource version"))
				server.Delete(ref("a"))
				server.Compact()
				w.wait("compacted", "a", "none")
				server.Put(configMap("a", "3"))
				w.wait("it came again", "a", "3")
			})
		}
	}
}

// TestWireFaults: answers that are none end nothing, and are not taken for one.
func TestWireFaults(t *testing.T) {
	var mu sync.Mutex
	faults := []error{
		errors.New("cut"), // the connection is cut
		apierrors.NewForbidden(corev1.Resource("configmaps"), "a", errors.New("no relationship found")),
		apierrors.NewInternalError(errors.New("etcd is away")),
		apierrors.NewServiceUnavailable("starting"),
		apierrors.NewUnauthorized("expired"),
		apierrors.NewTooManyRequests("slow down", 1),
	}
	server := &objecttest.Server{Fault: func(context.Context, string, pod.ObjectRef) error {
		mu.Lock()
		defer mu.Unlock()
		if len(faults) == 0 {
			return nil
		}
		err := faults[0]
		faults = faults[1:]
		return err
	}}
	handler := server.Handler(nil)
	var proxied atomic.Int32
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if proxied.Add(1) == 1 {
			http.NotFound(w, r) // no API server at all
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	server.Put(configMap("a", "1"))
	w := dial(t, h.URL, false)
	p := user("one", "a")
	w.store.Keep([]*corev1.Pod{p})
	w.store.Await(t.Context(), p)
	if _, err := w.store.ConfigMap("ns", "a"); apierrors.IsNotFound(err) {
		t.Errorf("a proxy's 404 is told as %v", err)
	}
	w.wait("after all", "a", "1")
}

// TestWireSecretsClaimsTokens: the other kinds over the wire.
func TestWireSecretsClaimsTokens(t *testing.T) {
	server := &objecttest.Server{}
	h := httptest.NewServer(server.Handler(nil))
	t.Cleanup(h.Close)
	server.Put(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}, Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{"k": {0, 255}}})
	c := server.Put(claim("c", "v", corev1.ClaimBound)).(*corev1.PersistentVolumeClaim)
	server.Put(volumeOf("v", c, corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/mnt"}}))
	wish := pod.TokenWish{Audience: "vault", Seconds: 601}
	p := withTokens(claimUser("one", "c"), wish)
	p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "s"}}
	w := dial(t, h.URL, false)
	w.store.Keep([]*corev1.Pod{p})
	w.store.Await(t.Context(), p)
	if s, err := w.store.Secret("ns", "s"); err != nil || s.Type != corev1.SecretTypeDockerConfigJson || string(s.Data["k"]) != "\x00\xff" {
		t.Errorf("the secret is %v, %v", s, err)
	}
	if v, err := w.store.Claim(p, &p.Spec.Volumes[0]); err != nil || v.Spec.Local.Path != "/mnt" {
		t.Errorf("the claim is %v, %v", v, err)
	}
	if text, err := w.store.Token(p, wish); err != nil || text != objecttest.TokenText+"1" {
		t.Errorf("the token is %q, %v", text, err)
	}
	if got := server.Tokens()[0].Spec; *got.ExpirationSeconds != 601 || got.Audiences[0] != "vault" || got.BoundObjectRef.UID != p.UID {
		t.Errorf("the token was asked for with %v", got)
	}
}

// serveEnv makes the test binary an API server, so that its memory is not
// measured with ours.
const serveEnv = "NODEAGENT_OBJECT_SERVE"

const measured = 500

func serveForever() {
	server := &objecttest.Server{}
	for i := range measured {
		server.Put(configMap(fmt.Sprint("m", i), "1"))
	}
	h := httptest.NewUnstartedServer(server.Handler(nil))
	h.EnableHTTP2 = true
	h.StartTLS()
	fmt.Println(h.URL)
	_, _ = bufio.NewReader(os.Stdin).ReadByte() // until the test ends
}

// perObject is what a watched object may cost beside its data: its goroutine, the
// watch's and the stream's, and their buffers.
const perObject = 40 << 10

// TestMemoryOfAnObject measures it over HTTP/2 with TLS, as it is in a cluster.
func TestMemoryOfAnObject(t *testing.T) {
	need.Have(t, need.NoRace)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	w := dial(t, strings.TrimSpace(address), false)
	warm := user("warm", "m0")
	w.store.Keep([]*corev1.Pod{warm})
	w.wait("the first", "m0", "1")
	before, goroutines := used(), runtime.NumGoroutine()
	pods := []*corev1.Pod{warm}
	for i := 1; i < measured; i++ {
		name := fmt.Sprint("m", i)
		pods = append(pods, user(name, name))
	}
	w.store.Keep(pods)
	for i := range measured {
		w.wait("all", fmt.Sprint("m", i), "1")
	}
	for range measured { // who waits for a slot has it before us
		release, err := slot(t.Context(), w.store.watches)
		if err != nil {
			t.Fatal(err)
		}
		release()
	}
	each := (used() - before) / (measured - 1)
	t.Logf("%d bytes and %.1f goroutines an object", each, float64(runtime.NumGoroutine()-goroutines)/(measured-1))
	if each > perObject {
		t.Errorf("a watched object costs %d bytes, want at most %d", each, perObject)
	}
	w.store.Keep(nil)
}

// used is the memory of heap and stacks at rest: each collection halves a stack
// that was deep once.
func used() int64 {
	for range 5 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
