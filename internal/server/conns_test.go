package server

import (
	"container/list"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"testing"
	"time"
)

// TestStrangersPushOutEachOther: many connections that never say a word, or half of
// one, take no more than their places; clients with rights keep theirs, and a new
// one gets in while the flood goes on.
func TestStrangersPushOutEachOther(t *testing.T) {
	const strangers = 8
	b := newBed(t, func(cfg *NodeAPIConfig) {
		cfg.limits = limits{}.orUsual()
		cfg.limits.conns, cfg.limits.strangers = 12, strangers
	}).run(t)
	boss := b.client(t, false, b.ca.client(t, "boss"))
	if got := ask(t, boss, http.MethodGet, b.url+"/healthz"); got.code != http.StatusOK {
		t.Fatalf("before: %d", got.code)
	}
	for i := range 10 * strangers {
		c, err := net.Dial("tcp", b.conns.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i%2 == 0 {
			_, _ = c.Write([]byte{0x16, 0x03, 0x01}) // a ClientHello begins
		}
	}
	late := b.client(t, true, b.ca.client(t, "boss"))
	if got := ask(t, late, http.MethodGet, b.url+"/healthz"); got.code != http.StatusOK {
		t.Errorf("in the flood a newcomer gets %d", got.code)
	}
	reused := false
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodGet, b.url+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := boss.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if !reused {
		t.Error("a client with rights lost its connection to strangers")
	}
	b.conns.mu.Lock()
	defer b.conns.mu.Unlock()
	if b.conns.strangers > strangers || b.conns.all > 12 {
		t.Errorf("%d strangers of %d connections, want at most %d of 12", b.conns.strangers, b.conns.all, strangers)
	}
}

// TestAddressWithMostGoes: a flood of one address does not push out another's.
func TestAddressWithMostGoes(t *testing.T) {
	l := newConns(6, 4)
	admit := func(address string) (*conn, *conn, bool) {
		ours, theirs := net.Pipe()
		t.Cleanup(func() { ours.Close(); theirs.Close() })
		c := &conn{Conn: ours, of: l, address: address}
		out, ok := l.admit(c)
		return c, out, ok
	}
	quiet, _, _ := admit("quiet")
	first, _, _ := admit("loud")
	admit("loud")
	admit("loud")
	if _, out, ok := admit("loud"); !ok || out != first {
		t.Errorf("%v goes, want the oldest of the loud one", out)
	}
	if quiet.place == nil {
		t.Error("the quiet one went")
	}
	_ = first.Close() // was counted when it went
	l.mu.Lock()
	l.leave(quiet)
	l.mu.Unlock()
	if l.strangers != 3 || l.all != 4 {
		t.Errorf("%d strangers of %d, want 3 of 4", l.strangers, l.all)
	}
	// Once all places belong to clients with rights, nobody more gets in.
	for _, of := range []string{"a", "b"} {
		c, _, _ := admit(of)
		l.mu.Lock()
		l.leave(c)
		l.mu.Unlock()
	}
	l.mu.Lock()
	for l.oldest() != nil {
		l.leave(l.oldest())
	}
	l.mu.Unlock()
	if _, out, ok := admit("late"); ok || out != nil {
		t.Errorf("one more than all gets in for %v", out)
	}
	_ = quiet.Close()
	_ = quiet.Close()
	if l.all != 5 || l.strangers != 0 || len(l.by) != 0 {
		t.Errorf("after an end %d of %d, %d addresses", l.strangers, l.all, len(l.by))
	}
	if c, _, ok := admit("late"); !ok || c.place == (*list.Element)(nil) {
		t.Error("a free place is not given")
	}
}

// TestOldestOfAllGoes: of addresses that have the same number of connections the one
// goes that came first, not somebody who has just come.
func TestOldestOfAllGoes(t *testing.T) {
	const places = 64
	l := newConns(places, places)
	var all []*conn
	for i := range 4 * places {
		ours, theirs := net.Pipe()
		t.Cleanup(func() { ours.Close(); theirs.Close() })
		c := &conn{Conn: ours, of: l, address: fmt.Sprint("address ", i)}
		out, ok := l.admit(c)
		if all = append(all, c); i >= places && (!ok || out != all[i-places]) {
			t.Fatalf("for the connection %d %+v goes, want the oldest", i, out)
		}
	}
}

func TestGate(t *testing.T) {
	g := newGate(3, 2)
	var leave []func()
	for i, c := range []struct {
		user string
		ok   bool
	}{{"a", true}, {"a", true}, {"a", false}, {"b", true}, {"b", false}, {"c", false}} {
		out, ok := g.enter(c.user)
		if ok != c.ok {
			t.Errorf("entry %d of %s: %v", i, c.user, ok)
		}
		if ok {
			leave = append(leave, out)
		}
	}
	for _, out := range leave {
		out()
	}
	if g.all != 0 || len(g.by) != 0 {
		t.Errorf("after all left: %d, %v", g.all, g.by)
	}
}

// TestTooMuch: what is too long is refused, and a body is not read to its end.
func TestTooMuch(t *testing.T) {
	b := newBed(t, nil).run(t)
	c := b.client(t, false, b.ca.client(t, "boss"))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 40 {
		req.Header.Add("X-Long", string(bytesOf('x', 4<<10)))
	}
	resp, err := c.Do(req)
	if err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("160 KiB of headers: %d", resp.StatusCode)
		}
	}
	endless := &endless{}
	req, err = http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+"/nothing", endless)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err = c.Do(req); err == nil { // or the connection was closed under it
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("an endless body: %d", resp.StatusCode)
		}
	}
}

func bytesOf(b byte, n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = b
	}
	return out
}

// endless is a body without an end.
type endless struct{}

func (*endless) Read(p []byte) (int, error) { return len(p), nil }

// TestFullGateIsTold: one more than the node serves is asked to come back.
func TestFullGateIsTold(t *testing.T) {
	b := newBed(t, func(cfg *NodeAPIConfig) {
		cfg.limits = limits{}.orUsual()
		cfg.limits.userRequests = 1
	}).run(t)
	leave, _ := b.requests.enter("boss")
	if got := ask(t, b.boss(t), http.MethodGet, b.url+"/healthz"); got.code != http.StatusTooManyRequests || got.head.Get("Retry-After") == "" {
		t.Errorf("a full gate: %d %q", got.code, got.body)
	}
	leave()
	if got := ask(t, b.boss(t), http.MethodGet, b.url+"/healthz"); got.code != http.StatusOK {
		t.Errorf("a free gate: %d", got.code)
	}
}

// TestLogWriterDeadlines: each piece has its time, and the quiet between the lines
// of a log that is followed has none.
func TestLogWriterDeadlines(t *testing.T) {
	for _, follow := range []bool{false, true} {
		w := &deadlines{ResponseWriter: discard{}}
		l := &logWriter{w: w, control: http.NewResponseController(w), each: time.Minute, flush: follow}
		for range 2 {
			if _, err := l.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		var zero []bool
		for _, d := range w.set {
			zero = append(zero, d.IsZero())
		}
		if follow && (len(zero) != 4 || zero[0] || !zero[1] || zero[2] || !zero[3]) || !follow && (len(zero) != 2 || zero[0] || zero[1]) {
			t.Errorf("follow %v sets %v", follow, w.set)
		}
	}
}

type deadlines struct {
	http.ResponseWriter
	set []time.Time
}

func (d *deadlines) SetWriteDeadline(at time.Time) error { d.set = append(d.set, at); return nil }

func (d *deadlines) FlushError() error { return nil }

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}
