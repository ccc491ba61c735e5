package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	authzv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"

	"nodeagent/internal/pod"
)

// echoes is a runtime whose commands give back what they read.
type echoes struct {
	begun chan struct{} // "wait" runs
	ended chan error    // how its context ended
	port  string
}

func (e *echoes) Exec(ctx context.Context, container string, s Session) (int32, error) {
	if container != "run1" {
		return 0, errors.New("another container")
	}
	switch s.Command[0] {
	case "cat":
		_, err := io.Copy(s.Stdout, s.Stdin)
		return 0, err
	case "count":
		n, err := io.Copy(io.Discard, s.Stdin)
		fmt.Fprint(s.Stdout, n)
		return 0, err
	case "both":
		fmt.Fprint(s.Stdout, "out")
		fmt.Fprint(s.Stderr, "err")
		return 3, nil
	case "size":
		size := <-s.Resize
		fmt.Fprintf(s.Stdout, "%dx%d tty=%t stderr=%t", size.Width, size.Height, s.TTY, s.Stderr != nil)
		return 0, nil
	case "wait":
		e.begun <- struct{}{}
		<-ctx.Done()
		e.ended <- context.Cause(ctx)
		return 0, ctx.Err()
	case "flood":
		for ctx.Err() == nil {
			_, _ = s.Stdout.Write(make([]byte, 1<<10))
		}
		e.ended <- context.Cause(ctx)
		return 0, ctx.Err()
	}
	return 0, errors.New("no such command")
}

func (e *echoes) Attach(_ context.Context, sandbox, container string, s Session) error {
	fmt.Fprintf(s.Stdout, "%s %s: ", sandbox, container)
	_, err := io.Copy(s.Stdout, s.Stdin)
	return err
}

func (e *echoes) Dial(ctx context.Context, s pod.Sandbox, port uint16) (net.Conn, error) {
	if s.Netns != "/ns" || port != 80 {
		return nil, errors.New("connection refused")
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", e.port)
}

// streaming is a bed whose pod has a container that runs.
func streaming(t *testing.T) (*bed, *echoes) { return streamingFor(t, 0) }

// streamingFor is one where a stream may be silent for so long.
func streamingFor(t *testing.T, idle time.Duration) (*bed, *echoes) {
	e := &echoes{begun: make(chan struct{}, 1), ended: make(chan error, 1)}
	b := newBed(t, func(cfg *NodeAPIConfig) { cfg.Streams, cfg.StreamIdle = e, idle }).run(t)
	b.node.mu.Lock()
	defer b.node.mu.Unlock()
	b.node.all = []*corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "u1"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}, {Name: "over"}}}}}
	b.node.states["u1"] = pod.RuntimeState{UID: "u1",
		Sandboxes:  []pod.Sandbox{{ID: "old", Stopped: true}, {ID: "sandbox", Attempt: 1, Netns: "/ns"}},
		Containers: []pod.Container{{ID: "run0", Name: "app", State: pod.ContainerExited}, {ID: "run1", Name: "app", State: pod.ContainerRunning}}}
	return b, e
}

// restConfig is that of a client with a certificate.
func (b *bed) restConfig(t *testing.T, name string) *rest.Config {
	c := b.ca.client(t, name)
	key, err := x509.MarshalECPrivateKey(c.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	return &rest.Config{Host: b.url, TLSClientConfig: rest.TLSClientConfig{
		CAData: b.serving.pem(), CertData: block("CERTIFICATE", c.Certificate[0]), KeyData: block("EC PRIVATE KEY", key)}}
}

// oldWebSocket cannot say that the input has ended.
const oldWebSocket = "WebSocket before the fifth version"

// executors are the transports of client-go: kubectl's is WebSocket.
func (b *bed) executors(t *testing.T, name, path string) map[string]remotecommand.Executor {
	cfg := b.restConfig(t, name)
	u, err := url.Parse(b.url + path)
	if err != nil {
		t.Fatal(err)
	}
	old, err := remotecommand.NewSPDYExecutor(cfg, http.MethodPost, u)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]remotecommand.Executor{"SPDY": old}
	for name, version := range map[string]string{"WebSocket": "v5.channel.k8s.io", oldWebSocket: "v4.channel.k8s.io"} {
		if all[name], err = remotecommand.NewWebSocketExecutorForProtocols(cfg, http.MethodGet, u.String(), version); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// TestExec runs commands as kubectl and the API server do.
func TestExec(t *testing.T) {
	b, _ := streaming(t)
	for name, e := range b.executors(t, "boss", "/exec/ns/web/app?command=both&output=1&error=1") {
		var out, errs bytes.Buffer
		err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: &out, Stderr: &errs})
		var exit utilexec.CodeExitError
		if !errors.As(err, &exit) || exit.Code != 3 || out.String() != "out" || errs.String() != "err" {
			t.Errorf("%s: a command that fails gives %q, %q, %v", name, &out, &errs, err)
		}
	}
	for name, e := range b.executors(t, "boss", "/exec/ns/web/u1/app?command=cat&input=1&output=1") {
		if name == oldWebSocket {
			continue
		}
		var out bytes.Buffer
		text := strings.Repeat("all of it\n", 10_000)
		err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader(text), Stdout: &out})
		if err != nil || out.String() != text {
			t.Errorf("%s: of %d bytes %d came back, %v", name, len(text), out.Len(), err)
		}
	}
	for name, e := range b.executors(t, "boss", "/exec/ns/web/app?command=size&tty=1&output=1&error=1&input=1") {
		var out bytes.Buffer
		err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: bytes.NewReader(nil), Stdout: &out, Tty: true, TerminalSizeQueue: sizes{make(chan struct{}, 1)}})
		if err != nil || out.String() != "80x24 tty=true stderr=false" {
			t.Errorf("%s: a terminal is %q, %v", name, &out, err)
		}
	}
}

// sizes gives one size.
type sizes struct{ given chan struct{} }

func (s sizes) Next() *remotecommand.TerminalSize {
	select {
	case s.given <- struct{}{}:
		return &remotecommand.TerminalSize{Width: 80, Height: 24}
	default:
		return nil
	}
}

// TestSilentStreamEnds: a stream on which nobody says anything ends when it has been
// silent for as long as the configuration lets it.
func TestSilentStreamEnds(t *testing.T) {
	b, _ := streamingFor(t, time.Second)
	for name, e := range b.executors(t, "boss", "/exec/ns/web/app?command=cat&input=1&output=1") {
		silent, w := io.Pipe()
		err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: silent, Stdout: io.Discard})
		t.Logf("%s: it ended: %v", name, err)
		_ = w.Close()
	}
}

// TestExecRefused: what cannot be is told before anything is upgraded, and a right
// to read is none to execute.
func TestExecRefused(t *testing.T) {
	b, _ := streaming(t)
	b.reviewer.set(func() {
		b.reviewer.may = func(s authzv1.SubjectAccessReviewSpec) bool {
			return s.User == "boss" || s.ResourceAttributes.Verb == "get"
		}
	})
	for path, want := range map[string]int{
		"/exec/ns/web/app?output=1":              http.StatusBadRequest,
		"/exec/ns/web/app?command=cat":           http.StatusBadRequest,
		"/exec/ns/web/over?command=a&output=1":   http.StatusConflict,
		"/exec/ns/web/none?command=a&output=1":   http.StatusNotFound,
		"/exec/ns/web/u2/app?command=a&output=1": http.StatusNotFound,
		"/exec/ns/none/app?command=a&output=1":   http.StatusNotFound,
		"/attach/ns/web/over?output=1":           http.StatusConflict,
		"/portForward/ns/none":                   http.StatusNotFound,
	} {
		if got := ask(t, b.boss(t), http.MethodPost, b.url+path); got.code != want {
			t.Errorf("%s: %d %s, want %d", path, got.code, got.body, want)
		}
	}
	for name, e := range b.executors(t, "reader", "/exec/ns/web/app?command=both&output=1") {
		if err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: io.Discard}); err == nil || !strings.Contains(err.Error(), "orbidden") && !strings.Contains(err.Error(), "403") {
			t.Errorf("%s: who may only read executes: %v", name, err)
		}
	}
}

// TestExecOfNobody: a command does not go on when nobody takes what it says.
func TestExecOfNobody(t *testing.T) {
	b, e := streaming(t)
	for name, x := range b.executors(t, "boss", "/exec/ns/web/app?command=flood&output=1") {
		ctx, cancel := context.WithCancel(t.Context())
		_ = x.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: leaves{cancel}})
		cancel()
		if err := <-e.ended; err == nil {
			t.Errorf("%s: it went on", name)
		}
	}
}

// leaves is somebody who goes away at the first byte.
type leaves struct{ leave func() }

func (l leaves) Write(p []byte) (int, error) {
	l.leave()
	return len(p), nil
}

// TestAttach joins the container in the sandbox that is there.
func TestAttach(t *testing.T) {
	b, _ := streaming(t)
	for name, e := range b.executors(t, "boss", "/attach/ns/web/app?input=1&output=1") {
		if name == oldWebSocket {
			continue
		}
		var out bytes.Buffer
		err := e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out})
		if err != nil || out.String() != "sandbox run1: hello" {
			t.Errorf("%s: attached to %q, %v", name, &out, err)
		}
	}
}

// TestRun answers with what the command says.
func TestRun(t *testing.T) {
	b, _ := streaming(t)
	if got := ask(t, b.boss(t), http.MethodPost, b.url+"/run/ns/web/app?cmd=both"); got.code != http.StatusOK || got.body != "outerr" {
		t.Errorf("run: %d %q", got.code, got.body)
	}
	if got := ask(t, b.boss(t), http.MethodPost, b.url+"/run/ns/web/app"); got.code != http.StatusBadRequest {
		t.Errorf("run without a command: %d %q", got.code, got.body)
	}
}

// echoing answers every connection with what it says, and names its address.
func echoing(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() { // ends with l
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return l.Addr().String()
}

// TestPortForward carries connections to the pod's network, several at a time, over
// SPDY and over SPDY within a WebSocket, as kubectl does.
func TestPortForward(t *testing.T) {
	b, e := streaming(t)
	e.port = echoing(t)
	cfg := b.restConfig(t, "boss")
	transport, upgrader, err := spdy.RoundTripperFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	u, _ := url.Parse(b.url + "/portForward/ns/web")
	tunnel, err := portforward.NewSPDYOverWebsocketDialer(u, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for name, dialer := range map[string]httpstream.Dialer{
		"SPDY": spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, u), "tunnel": tunnel,
	} {
		t.Run(name, func(t *testing.T) { forwards(t, dialer) })
	}
}

func forwards(t *testing.T, dialer httpstream.Dialer) {
	stop, ready := make(chan struct{}), make(chan struct{})
	f, err := portforward.New(dialer, []string{"0:80", "0:81"}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- f.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	ports, err := f.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("connection %d", i)
		fmt.Fprint(conn, text)
		_ = conn.(*net.TCPConn).CloseWrite()
		got, err := io.ReadAll(conn)
		if err != nil || string(got) != text {
			t.Errorf("%q came back as %q, %v", text, got, err)
		}
		conn.Close()
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
