package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// manager is the service manager's end of the notices.
func manager(t *testing.T, watchdog string) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", watchdog)
	t.Setenv("WATCHDOG_PID", "")
	return conn
}

// next is the next notice, or "" after a while without one.
func next(t *testing.T, conn *net.UnixConn, within time.Duration) string {
	t.Helper()
	buf := make([]byte, 4096)
	_ = conn.SetReadDeadline(time.Now().Add(within))
	n, err := conn.Read(buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

const soon = 10 * time.Second

func TestNotify(t *testing.T) {
	conn := manager(t, "100000") // the watchdog wants to hear every 0.1 s
	var sick atomic.Bool
	ready := make(chan struct{})
	n := &Notify{
		Ready: ready, Logger: slog.New(slog.DiscardHandler),
		Status: func() string { return "3 pods, 2 running" },
		Checks: Checks{{"pods", func() error {
			if sick.Load() {
				return errors.New("no progress")
			}
			return nil
		}}},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()

	if got := next(t, conn, soon); !strings.HasPrefix(got, "STATUS=Adopting") {
		t.Errorf("the first notice is %q", got)
	}
	if got := next(t, conn, 50*time.Millisecond); got != "" {
		t.Errorf("before it is ready it says %q", got)
	}
	close(ready)
	for _, want := range []string{"READY=1", "WATCHDOG=1", "STATUS=3 pods, 2 running", "WATCHDOG=1", "WATCHDOG=1"} {
		if got := next(t, conn, soon); got != want {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
	// A hung loop must not keep the watchdog quiet.
	sick.Store(true)
	got := "WATCHDOG=1"
	for i := 0; i < 10 && got == "WATCHDOG=1"; i++ { // what was on its way
		got = next(t, conn, soon)
	}
	if got != "STATUS=Unhealthy: pods: no progress" {
		t.Errorf("a hung loop is told as %q", got)
	}
	if got := next(t, conn, 300*time.Millisecond); got != "" {
		t.Errorf("with a hung loop it says %q", got)
	}
	cancel()
	if got := next(t, conn, soon); got != "STOPPING=1" {
		t.Errorf("at its end it says %q", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestNotifyNobody: without a service manager it waits for its end.
func TestNotifyNobody(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (&Notify{}).Run(ctx); err != nil {
		t.Error(err)
	}
}

// TestNotifyReload: who begins anew does not stop.
func TestNotifyReload(t *testing.T) {
	conn := manager(t, "")
	ready := make(chan struct{})
	close(ready)
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	n := &Notify{Ready: ready, Logger: slog.New(slog.DiscardHandler), Status: func() string { return "well" }}
	go func() { done <- n.Run(ctx) }()
	for _, want := range []string{"STATUS=Adopting what runs already", "READY=1", "STATUS=well"} {
		if got := next(t, conn, soon); got != want {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
	Tell(n.Logger, Reloading())
	if got := next(t, conn, soon); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") {
		t.Errorf("a reload is told as %q", got)
	}
	cancel(ErrReload)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := next(t, conn, 50*time.Millisecond); got != "" {
		t.Errorf("at its end it says %q", got)
	}
}

// A daemon that ends before it was ready says so too: what was started since then
// has an end that nobody may take for a failure.
func TestNotifyEndsBeforeReady(t *testing.T) {
	for cause, want := range map[error]string{context.Canceled: "STOPPING=1", ErrReload: ""} {
		conn := manager(t, "")
		ctx, cancel := context.WithCancelCause(t.Context())
		n := &Notify{Ready: make(chan struct{}), Logger: slog.New(slog.DiscardHandler)}
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		if got := next(t, conn, soon); !strings.HasPrefix(got, "STATUS=Adopting") {
			t.Errorf("the first notice is %q", got)
		}
		cancel(cause)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got := next(t, conn, 50*time.Millisecond); got != want {
			t.Errorf("after %v it says %q, want %q", cause, got, want)
		}
	}
}
