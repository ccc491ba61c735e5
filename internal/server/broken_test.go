package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nodeagent/internal/pod"
)

// patient is a runtime whose streams last until their client goes.
type patient struct{ begun chan struct{} }

func (p patient) carry(ctx context.Context, in io.Reader) error {
	p.begun <- struct{}{}
	if in != nil {
		_, err := io.Copy(io.Discard, in)
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func (p patient) Exec(ctx context.Context, _ string, s Session) (int32, error) {
	return 0, p.carry(ctx, s.Stdin)
}

func (p patient) Attach(ctx context.Context, _, _ string, s Session) error {
	return p.carry(ctx, s.Stdin)
}

func (p patient) Dial(context.Context, pod.Sandbox, uint16) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, ours) }() // ends with theirs
	return theirs, nil
}

// TestBrokenStreamsLeaveNothing: streams of every kind that break off in the middle, by
// the hundred (STREAMS says how many; "make soak" asks for ten thousand), leave no
// goroutine and no descriptor.
func TestBrokenStreamsLeaveNothing(t *testing.T) {
	streams := 400
	if more, err := strconv.Atoi(os.Getenv("STREAMS")); err == nil {
		streams = more
	}
	begun := make(chan struct{}, 1)
	b := newBed(t, func(cfg *NodeAPIConfig) { cfg.Streams = patient{begun} }).run(t)
	b.node.mu.Lock()
	b.node.all = []*corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "u1"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}}}}
	b.node.states["u1"] = pod.RuntimeState{UID: "u1", Sandboxes: []pod.Sandbox{{ID: "sandbox", Netns: "/ns"}},
		Containers: []pod.Container{{ID: "run1", Name: "app", State: pod.ContainerRunning}}}
	b.node.mu.Unlock()
	pair := b.ca.client(t, "boss")
	kinds := []struct {
		path, protocol, version string
		begins                  bool // the runtime is asked as soon as the connection is upgraded
	}{
		{"/exec/ns/web/app?command=a&output=1", "websocket", "v4.channel.k8s.io", true},
		{"/exec/ns/web/app?command=a&input=1&output=1", "websocket", "v4.channel.k8s.io", true},
		{"/attach/ns/web/app?input=1&output=1", "websocket", "v4.channel.k8s.io", true},
		{"/attach/ns/web/app?output=1", "websocket", "v4.channel.k8s.io", true},
		{"/exec/ns/web/app?command=a&output=1", "SPDY/3.1", "v4.channel.k8s.io", false},
		{"/portForward/ns/web", "SPDY/3.1", "portforward.k8s.io", false},
	}
	for _, k := range kinds {
		b.breakOff(t, pair, k.path, k.protocol, k.version, k.begins, begun)
	}
	fds, goroutines := descriptors(t), runtime.NumGoroutine()
	began := time.Now()
	mute, code := b.open(t, pair, "/attach/ns/web/app?output=1", "SPDY/3.1", "v4.channel.k8s.io")
	defer mute.Close()
	if code != http.StatusSwitchingProtocols {
		t.Fatalf("attach is answered with %d", code)
	}
	for i := range streams {
		k := kinds[i%len(kinds)]
		b.breakOff(t, pair, k.path, k.protocol, k.version, k.begins, begun)
	}
	_ = mute.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.Copy(io.Discard, mute); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a connection on which no stream was ever opened stays")
	}
	_ = mute.Close()
	const slack = 5
	for limit := time.Now().Add(2 * time.Minute); descriptors(t) > fds+slack || runtime.NumGoroutine() > goroutines+slack; {
		if time.Now().After(limit) {
			var left strings.Builder
			_ = pprof.Lookup("goroutine").WriteTo(&left, 1)
			t.Fatalf("%d streams that broke off: %d descriptors, before %d; %d goroutines, before %d\n%.8000s",
				streams, descriptors(t), fds, runtime.NumGoroutine(), goroutines, left.String())
		}
		runtime.Gosched()
	}
	t.Logf("figure: %d streams that broke off in %.1f s: descriptors %d and %d, goroutines %d and %d", streams, time.Since(began).Seconds(), fds, descriptors(t), goroutines, runtime.NumGoroutine())
}

// TestRefusedUpgradeCloses: a connection that was to become a stream and did not, for
// whatever reason, takes no other request, and nobody is sent elsewhere.
func TestRefusedUpgradeCloses(t *testing.T) {
	b, _ := streaming(t)
	boss, clerk := b.ca.client(t, "boss"), b.ca.client(t, "clerk")
	nobody := tls.Certificate{}
	for _, c := range []struct {
		name                    string
		pair                    *tls.Certificate
		path, protocol, version string
		code                    int
	}{
		{"nobody", &nobody, "/exec/ns/web/app?command=cat&output=1", "SPDY/3.1", "v4.channel.k8s.io", http.StatusUnauthorized},
		{"no right", &clerk, "/exec/ns/web/app?command=cat&output=1", "websocket", "v4.channel.k8s.io", http.StatusForbidden},
		{"no pod", &boss, "/exec/ns/none/app?command=cat&output=1", "websocket", "v4.channel.k8s.io", http.StatusNotFound},
		{"it does not run", &boss, "/attach/ns/web/over?output=1", "SPDY/3.1", "v4.channel.k8s.io", http.StatusConflict},
		{"no command", &boss, "/exec/ns/web/app?output=1", "SPDY/3.1", "v4.channel.k8s.io", http.StatusBadRequest},
		{"no such path", &boss, "/exec/../pods", "websocket", "v4.channel.k8s.io", http.StatusNotFound},
		{"no such path", &boss, "/exec//ns/web/app?command=cat&output=1", "SPDY/3.1", "v4.channel.k8s.io", http.StatusNotFound},
		{"what no stream is", &boss, "/healthz", "websocket", "v4.channel.k8s.io", http.StatusOK},
		{"another protocol", &boss, "/exec/ns/web/app?command=cat&output=1", "websocket", "v9.channel.k8s.io", http.StatusBadRequest},
		{"another protocol", &boss, "/exec/ns/web/app?command=cat&output=1", "SPDY/3.1", "v9.channel.k8s.io", http.StatusForbidden},
		{"another protocol", &boss, "/portForward/ns/web", "SPDY/3.1", "v9.portforward.k8s.io", http.StatusForbidden},
		{"another kind", &boss, "/exec/ns/web/app?command=cat&output=1", "h2c", "v4.channel.k8s.io", http.StatusBadRequest},
	} {
		method := http.MethodPost
		if c.protocol == "websocket" || c.path == "/healthz" {
			method = http.MethodGet
		}
		raw, err := net.Dial("tcp", b.conns.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		_ = raw.SetDeadline(time.Now().Add(time.Minute))
		conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{*c.pair}})
		fmt.Fprint(conn, upgradeRequest(method, c.path, c.protocol, c.version), "GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n")
		in := bufio.NewReader(conn)
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("%s, %s: %v", c.name, c.protocol, err)
		}
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if resp.StatusCode != c.code || resp.Header.Get("Location") != "" {
			t.Errorf("%s, %s: answered with %d %q, want %d", c.name, c.protocol, resp.StatusCode, text, c.code)
		}
		if next, err := http.ReadResponse(in, nil); err == nil {
			t.Errorf("%s, %s: the connection takes another request and answers it with %d", c.name, c.protocol, next.StatusCode)
		}
	}
}

// upgradeRequest asks for a stream.
func upgradeRequest(method, path, protocol, version string) string {
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: %s\r\n", method, path, protocol)
	if protocol == "websocket" {
		return head + fmt.Sprintf("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n", base64.StdEncoding.EncodeToString(make([]byte, 16)), version)
	}
	return head + fmt.Sprintf("X-Stream-Protocol-Version: %s\r\nContent-Length: 0\r\n\r\n", version)
}

// breakOff opens a stream and leaves it without a word. Where too many are there
// still, it comes back.
func (b *bed) breakOff(t *testing.T, pair tls.Certificate, path, protocol, version string, begins bool, begun <-chan struct{}) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); ; {
		c, code := b.open(t, pair, path, protocol, version)
		if code == http.StatusSwitchingProtocols && begins {
			<-begun
		}
		_ = c.NetConn().(*net.TCPConn).SetLinger(0) // a reset
		_ = c.NetConn().Close()
		switch {
		case code == http.StatusSwitchingProtocols:
			return
		case code != http.StatusTooManyRequests || time.Now().After(limit):
			t.Fatalf("%s by %s is answered with %d", path, protocol, code)
		}
	}
}

// open asks for a stream.
func (b *bed) open(t *testing.T, pair tls.Certificate, path, protocol, version string) (*tls.Conn, int) {
	t.Helper()
	raw, err := net.Dial("tcp", b.conns.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.SetDeadline(time.Now().Add(time.Minute))
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"}})
	method := http.MethodPost
	if protocol == "websocket" {
		method = http.MethodGet
	}
	fmt.Fprint(c, upgradeRequest(method, path, protocol, version))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%s by %s: %v", path, protocol, err)
	}
	return c, resp.StatusCode
}

// descriptors are those that this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
