package server

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// h2Frame is a frame of HTTP/2.
func h2Frame(kind, flags byte, stream uint32, payload []byte) []byte {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	return append(binary.BigEndian.AppendUint32(append(head, flags), stream), payload...)
}

// TestRapidReset: a client that opens streams and takes them back at once, by the ten
// thousand (RESETS says how many), has the work of no more of them done at a time than
// one connection may have, and keeps nobody out. Each of its
// streams would wait for an API server that does not answer.
func TestRapidReset(t *testing.T) {
	resets := 10_000
	if more, err := strconv.Atoi(os.Getenv("RESETS")); err == nil {
		resets = more
	}
	b := newBed(t, nil).run(t)
	boss := b.client(t, true, b.ca.client(t, "boss"))
	if got := ask(t, boss, http.MethodGet, b.url+"/healthz"); got.code != http.StatusOK {
		t.Fatalf("before: %d", got.code)
	}
	hang := make(chan struct{})
	b.reviewer.set(func() { b.reviewer.fault = func(http.ResponseWriter, *http.Request) { <-hang } })
	t.Cleanup(func() { close(hang) })
	before := runtime.NumGoroutine()

	raw, err := net.Dial("tcp", b.conns.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	said := make(chan struct{})
	go func() { // ends with the connection
		defer close(said)
		_, _ = io.Copy(io.Discard, c)
	}()
	_, _ = c.Write(append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), h2Frame(4, 0, 0, nil)...))
	sent, most := 0, 0
	for ; sent < resets; sent++ {
		id := uint32(2*sent + 1)
		guess := "Bearer " + strconv.Itoa(10_000_000+sent)
		fields := append([]byte{0x82, 0x87, 0x84, 0x01, 4}, "node"...)                        // GET, https, /, :authority
		fields = append(append(fields, 0x0f, 0x08, byte(len(guess))), guess...)               // authorization
		both := append(h2Frame(1, 0x5, id, fields), h2Frame(3, 0, id, []byte{0, 0, 0, 8})...) // HEADERS, whole; RST_STREAM, CANCEL
		if _, err := c.Write(both); err != nil {
			break
		}
		most = max(most, runtime.NumGoroutine()-before)
	}
	if got := ask(t, boss, http.MethodGet, b.url+"/healthz"); got.code != http.StatusOK {
		t.Errorf("meanwhile somebody with rights is answered with %d", got.code)
	}
	t.Logf("figure: of %d streams that were taken back at once %d were sent, for which there were %d goroutines at most", resets, sent, most)
	_ = c.Close()
	<-said
	if bound := 3*maxConnStreams + 50; most > bound {
		t.Errorf("%d goroutines work for one connection, want at most %d", most, bound)
	}
}
