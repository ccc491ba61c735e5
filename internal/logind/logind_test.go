package logind

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"nodeagent/internal/logind/logindtest"
)

// limit bounds what must happen and is not measured.
const limit = 30 * time.Second

func hold(t *testing.T, m *logindtest.Manager, least time.Duration) (*Hold, error) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return New(Config{Address: m.Address, ConfDir: m.ConfDir}).Hold(ctx, least)
}

func wantNext(t *testing.T, h *Hold, want bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if begun, err := h.Next(ctx); err != nil || begun != want {
		t.Fatalf("it is told that a shutdown goes on: %t, %v; want %t", begun, err, want)
	}
}

func wantAsked(t *testing.T, m *logindtest.Manager, want ...string) {
	t.Helper()
	if got := strings.Join(m.Asked(), "; "); got != strings.Join(want, "; ") {
		t.Errorf("asked was %q, want %q", got, want)
	}
}

// TestHold: a shutdown waits until it is let go, and is told of once.
func TestHold(t *testing.T) {
	m := logindtest.New(t, 5*time.Second)
	h, err := hold(t, m, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	wantAsked(t, m, "inhibit shutdown by nodeagent, delay")
	if _, err := os.Stat(m.ConfDir); !os.IsNotExist(err) {
		t.Errorf("although logind waits for long enough there is %s: %v", m.ConfDir, err)
	}
	wantNext(t, h, false)
	m.Prepare(true)
	m.Prepare(true)
	wantNext(t, h, true)
	m.Prepare(false)
	wantNext(t, h, false)
	h.Release()
	h.Release()
}

// TestLock: with the hold goes the lock, and not before.
func TestLock(t *testing.T) {
	m := logindtest.New(t, 5*time.Second)
	h, err := hold(t, m, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	released := m.Released()
	m.Prepare(true)
	wantNext(t, h, false)
	wantNext(t, h, true)
	select {
	case <-released:
		t.Fatal("the lock was let go by itself")
	default:
	}
	h.Release()
	select {
	case <-released:
	case <-time.After(limit):
		t.Error("the lock is held although it was let go")
	}
}

// TestStretch: a logind that would wait for too short a time is told to wait longer; one
// that does not obey is an error.
func TestStretch(t *testing.T) {
	m := logindtest.New(t, 5*time.Second)
	h, err := hold(t, m, 90*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	h.Release()
	wantAsked(t, m, "signal 1 to all of systemd-logind.service", "inhibit shutdown by nodeagent, delay")
	m.Deafen()
	if _, err := hold(t, m, 100*time.Second); err == nil || !strings.Contains(err.Error(), "it waits for 1m30s at most") {
		t.Errorf("a logind that does not obey is told as %v", err)
	}
}

// TestUnderWay: a shutdown that is under way is told of, although it waits for nobody
// new.
func TestUnderWay(t *testing.T) {
	m := logindtest.New(t, 5*time.Second)
	m.Prepare(true)
	h, err := hold(t, m, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	wantNext(t, h, true)
	h.Release()
}

// TestBusEnds: who waits is told that nothing more is heard, and the lock is still held.
func TestBusEnds(t *testing.T) {
	m := logindtest.New(t, 5*time.Second)
	h, err := hold(t, m, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	wantNext(t, h, false)
	m.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if _, err := h.Next(ctx); !errors.Is(err, errLost) {
		t.Errorf("the end of the bus is told as %v", err)
	}
	if _, err := h.lock.Stat(); err != nil {
		t.Errorf("with the bus the lock is gone: %v", err)
	}
	h.Release()
	if _, err := hold(t, m, time.Second); err == nil {
		t.Error("without a bus a shutdown is held")
	}
}
