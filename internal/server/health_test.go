package server

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestHealthz(t *testing.T) {
	broken := errors.New("a secret path")
	for _, c := range []struct {
		path string
		err  error
		code int
		body string
	}{
		{"/healthz", nil, http.StatusOK, "ok"},
		{"/healthz", broken, http.StatusInternalServerError, "unhealthy"},
		{"/healthz?verbose", nil, http.StatusOK, "[+]pods\n[+]runtime\n"},
		{"/healthz?verbose", broken, http.StatusInternalServerError, "[+]pods\n[-]runtime\n"},
	} {
		h := Health{Checks: Checks{{"pods", func() error { return nil }}, {"runtime", func() error { return c.err }}}}
		w := httptest.NewRecorder()
		h.healthz(w, httptest.NewRequest(http.MethodGet, c.path, nil))
		if w.Code != c.code || w.Body.String() != c.body {
			t.Errorf("%s with %v answers %d %q, want %d %q", c.path, c.err, w.Code, w.Body, c.code, c.body)
		}
	}
}

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turned := time.Now()
		check := Progress("pods", func() time.Time { return turned }, time.Minute)
		time.Sleep(time.Minute)
		if err := check.OK(); err != nil {
			t.Errorf("within its limit: %v", err)
		}
		time.Sleep(time.Second)
		if err := check.OK(); err == nil || !strings.Contains(err.Error(), "1m1s") {
			t.Errorf("a loop that hangs is told as %v", err)
		}
		turned = time.Now()
		if err := check.OK(); err != nil {
			t.Errorf("after it went on: %v", err)
		}
	})
}

// TestHealthEndsWithItsContext: it answers, and then the port is free again.
func TestHealthEndsWithItsContext(t *testing.T) {
	h := &Health{Addr: "127.0.0.1:0"}
	for range 2 {
		if err := h.Listen(); err != nil {
			t.Fatal(err)
		}
		h.Addr = h.listener.Addr().String()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx) }()
		resp, err := http.Get("http://" + h.Addr + "/healthz")
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("the port answers %v, %v", resp, err)
		} else {
			resp.Body.Close()
		}
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := (&Health{Addr: "192.0.2.1:1"}).Listen(); err == nil || !strings.Contains(err.Error(), "healthzPort: 0") {
		t.Errorf("a port that cannot be opened is told as %v", err)
	}
}
