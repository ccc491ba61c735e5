package server

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"
)

// TestAnswersBeforeItEnds: who asks for a reload ends the daemon with it, and
// hears the answer; the process runs another program as soon as Run returns.
func TestAnswersBeforeItEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	ctx, end := context.WithCancel(t.Context())
	defer end()
	ended := make(chan struct{})
	s, err := NewSocket(SocketConfig{Path: path, Pods: noPods{}, Logger: slog.New(slog.DiscardHandler), Reload: func() error {
		end()
		select {
		case <-ended:
			t.Error("it ended with an answer under way")
		case <-time.After(50 * time.Millisecond): // only how long a fault has to show
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- s.Run(ctx)
		close(ended)
	}()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Post("http://x/v1/reload", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || string(body) != "{}\n" {
		t.Errorf("%d %q %v", resp.StatusCode, body, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
