package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestPortWithFlood: who opens connections and says nothing does not keep others
// from an answer, and has no more of them than there are places.
func TestPortWithFlood(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- serveGuests(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "well") }), time.Hour)
	}()
	var flood []net.Conn
	for range maxGuests + 50 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		flood = append(flood, c)
	}
	client := http.Client{Timeout: 30 * time.Second}
	resp, err := client.Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || string(text) != "well" {
		t.Errorf("it answers %q, %v", text, err)
	}
	_ = flood[0].SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := flood[0].Read(make([]byte, 1)); err == nil {
		t.Error("the oldest connection says something")
	} else if timeout, ok := err.(net.Error); ok && timeout.Timeout() { //nolint:errorlint // as it comes
		t.Error("the oldest connection is still there")
	}
	client.CloseIdleConnections()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestPortTaken: a port that is taken is an error at once, and not opened.
func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := ServePort(t.Context(), l.Addr().String(), http.NotFoundHandler(), func() { t.Error("it is opened") }); err == nil {
		t.Error("nothing is said of a port that is taken")
	}
}
