package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	authzv1 "k8s.io/api/authorization/v1"
)

// socket opens a WebSocket as boss.
func (b *bed) socket(t *testing.T, path, version string) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b.serving.pem())
	d := websocket.Dialer{Subprotocols: []string{version}, TLSClientConfig: &tls.Config{
		RootCAs: roots, Certificates: []tls.Certificate{b.ca.client(t, "boss")}}}
	c, answer, err := d.DialContext(t.Context(), strings.Replace(b.url, "https", "wss", 1)+path, nil)
	if err == nil {
		t.Cleanup(func() { _ = c.Close() })
	}
	return c, answer, err
}

// heard is all that a WebSocket says on its channels, and how it ends.
func heard(c *websocket.Conn) (by map[byte]string, end error) {
	by = map[byte]string{}
	for {
		_, message, err := c.ReadMessage()
		if err != nil {
			return by, err
		}
		if len(message) > 0 {
			by[message[0]] += string(message[1:])
		}
	}
}

// TestSilentCommandOfNobody: a command that says nothing ends with its client, too.
func TestSilentCommandOfNobody(t *testing.T) {
	b, e := streaming(t)
	c, _, err := b.socket(t, "/exec/ns/web/app?command=wait&output=1", "v4.channel.k8s.io")
	if err != nil {
		t.Fatal(err)
	}
	<-e.begun // or there is nobody whom a client that is gone could end
	_ = c.NetConn().(*tls.Conn).NetConn().(*net.TCPConn).SetLinger(0)
	_ = c.NetConn().Close()
	if err := <-e.ended; err == nil {
		t.Error("it went on")
	}
}

// TestMessageOfAnySize: a message is handed on as it comes, in whatever pieces; nothing
// holds it whole.
func TestMessageOfAnySize(t *testing.T) {
	b, _ := streaming(t)
	c, _, err := b.socket(t, "/exec/ns/web/app?command=count&input=1&output=1", "v5.channel.k8s.io")
	if err != nil {
		t.Fatal(err)
	}
	w, err := c.NextWriter(websocket.BinaryMessage)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte{0})
	piece, pieces := make([]byte, 64<<10), 640 // 40 MiB: more than x/net/websocket takes
	for range pieces {
		if _, err := w.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Close()
	_ = c.WriteMessage(websocket.BinaryMessage, []byte{closing, 0})
	by, end := heard(c)
	if by[1] != fmt.Sprint(len(piece)*pieces) || !strings.Contains(by[3], `"status":"Success"`) || !websocket.IsCloseError(end, websocket.CloseNormalClosure) {
		t.Errorf("it says %q, and ends with %v", by, end)
	}
}

// TestWebSocketVersions: clients of each version are told how it ended, in its own way.
func TestWebSocketVersions(t *testing.T) {
	b, _ := streaming(t)
	status := `"message":"command terminated with non-zero exit code: exit code 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}`
	for version, want := range map[string]string{
		"v5.channel.k8s.io": status, "v4.channel.k8s.io": status, "channel.k8s.io": "command terminated with non-zero exit code: exit code 3",
		"base64.channel.k8s.io": "Y29tbWFuZCB0ZXJtaW5hdGVk",
	} {
		c, _, err := b.socket(t, "/exec/ns/web/app?command=both&output=1&error=1", version)
		if err != nil {
			t.Fatal(version, err)
		}
		by, _ := heard(c)
		out, errs, failed := by[1], by[2], by[3]
		if strings.HasPrefix(version, "base64") {
			out, errs, failed = strings.ReplaceAll(by['1'], "b3V0", "out"), strings.ReplaceAll(by['2'], "ZXJy", "err"), by['3']
		}
		if out != "out" || errs != "err" || !strings.Contains(failed, want) {
			t.Errorf("%s: it says %q", version, by)
		}
	}
	for path, version := range map[string]string{
		"/exec/ns/web/app?command=both&output=1":                        "v6.channel.k8s.io",
		"/portForward/ns/web":                                           "v4.channel.k8s.io", // without a port
		"/portForward/ns/web?port=0":                                    "v4.channel.k8s.io",
		"/portForward/ns/web?port=80" + strings.Repeat(",80", maxPorts): "v4.channel.k8s.io",
	} {
		if _, answer, err := b.socket(t, path, version); err == nil || answer == nil || answer.StatusCode != http.StatusBadRequest {
			t.Errorf("%.40s with %s: %v, %v", path, version, answer, err)
		}
	}
}

// TestWebSocketMisused: what is said to nobody is passed over; the end of a channel that
// is none ends all.
func TestWebSocketMisused(t *testing.T) {
	b, _ := streaming(t)
	c, _, err := b.socket(t, "/exec/ns/web/app?command=cat&input=1&output=1", "v5.channel.k8s.io")
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range [][]byte{{}, {1, 'x'}, {4, '{'}, {9, 'x'}, {0, 'a'}, {closing, 2}, {0, 'b'}, {closing, 0}, {0, 'c'}} {
		if err := c.WriteMessage(websocket.BinaryMessage, message); err != nil {
			t.Fatal(err)
		}
	}
	if by, end := heard(c); by[1] != "ab" {
		t.Errorf("it says %q, and ends with %v", by, end)
	}
	for _, message := range [][]byte{{closing, 9}, {closing}} {
		c, _, err := b.socket(t, "/exec/ns/web/app?command=cat&input=1&output=1", "v5.channel.k8s.io")
		if err != nil {
			t.Fatal(err)
		}
		_ = c.WriteMessage(websocket.BinaryMessage, message)
		if _, end := heard(c); end == nil {
			t.Errorf("after %v it goes on", message)
		}
	}
}

// TestPortForwardByChannels carries a connection a port, as browsers' clients ask for.
func TestPortForwardByChannels(t *testing.T) {
	b, e := streaming(t)
	e.port = echoing(t)
	c, _, err := b.socket(t, "/portForward/ns/web?port=80,81", "v4.channel.k8s.io")
	if err != nil {
		t.Fatal(err)
	}
	_ = c.WriteMessage(websocket.BinaryMessage, []byte("\x00there and back"))
	said := map[byte]string{}
	for said[0] != "\x50\x00there and back" || !strings.Contains(said[3], "connection refused") {
		_, message, err := c.ReadMessage()
		if err != nil {
			t.Fatalf("%v after %q", err, said)
		}
		said[message[0]] += string(message[1:])
	}
}

func onlyGet(s authzv1.SubjectAccessReviewSpec) bool { return s.ResourceAttributes.Verb == "get" }

// TestTunnelIsJudged: who may only read has no tunnel either.
func TestTunnelIsJudged(t *testing.T) {
	b, _ := streaming(t)
	b.reviewer.set(func() { b.reviewer.may = onlyGet })
	for path, version := range map[string]string{
		"/portForward/ns/web": "SPDY/3.1+portforward.k8s.io", "/portForward/ns/web?port=80": "v4.channel.k8s.io",
		"/exec/ns/web/app?command=cat&output=1": "v5.channel.k8s.io", "/attach/ns/web/app?output=1": "v5.channel.k8s.io",
	} {
		_, answer, err := b.socket(t, path, version)
		if !errors.Is(err, websocket.ErrBadHandshake) || answer.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %v, %v", path, answer, err)
		}
	}
}
