// Package logind owns what is said to systemd's login manager: that it waits with a
// shutdown of the machine, and for how long it may be made to. It writes one file, the
// drop-in of kubelet's name in logind's configuration, and that only where logind would
// wait for too short a time.
//
// It decides nothing about pods. Any goroutine may call it; a Hold belongs to one, but
// for Release.
package logind

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

// Config says where logind is.
type Config struct {
	// Address of the bus; "": the system's.
	Address string
	// ConfDir is where logind's drop-ins are; "": /etc/systemd/logind.conf.d.
	ConfDir string
}

// Logind is the login manager.
type Logind struct{ cfg Config }

// New returns a Logind that has said nothing yet.
func New(cfg Config) *Logind {
	if cfg.ConfDir == "" {
		cfg.ConfDir = "/etc/systemd/logind.conf.d"
	}
	return &Logind{cfg}
}

// Names on the bus.
const (
	service = "org.freedesktop.login1"
	object  = dbus.ObjectPath("/org/freedesktop/login1")
	manager = "org.freedesktop.login1.Manager"
	signal  = "PrepareForShutdown"
)

// deadline bounds everything that is asked on the bus for one Hold.
const deadline = 20 * time.Second

// Hold has logind wait with shutdowns that begin from now on, for least at the least,
// and listens to them. One that is under way waits for nobody new; it is told of all the
// same.
func (l *Logind) Hold(ctx context.Context, least time.Duration) (*Hold, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	conn, err := l.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to the system bus: %w", err)
	}
	h := &Hold{conn: conn, news: make(chan *dbus.Signal, 16)}
	if err := l.take(ctx, h, least); err != nil {
		h.Release()
		_ = conn.Close()
		return nil, err
	}
	return h, nil
}

func (l *Logind) connect(ctx context.Context) (*dbus.Conn, error) {
	type result struct {
		conn *dbus.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() { // the library's connect has no deadline of its own
		var r result
		if l.cfg.Address == "" {
			r.conn, r.err = dbus.ConnectSystemBus()
		} else {
			r.conn, r.err = dbus.Connect(l.cfg.Address)
		}
		done <- r
	}()
	select {
	case r := <-done:
		return r.conn, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.conn != nil {
				_ = r.conn.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// take listens, and then asks to be waited for: a shutdown that begins between the two
// is heard of.
func (l *Logind) take(ctx context.Context, h *Hold, least time.Duration) error {
	h.conn.Signal(h.news)
	err := h.conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface(manager), dbus.WithMatchMember(signal), dbus.WithMatchObjectPath(object))
	if err != nil {
		return fmt.Errorf("listen to shutdowns: %w", err)
	}
	if err := l.stretch(ctx, h.conn, least); err != nil {
		return err
	}
	var fd dbus.UnixFD
	call := h.conn.Object(service, object).CallWithContext(ctx, manager+".Inhibit", 0,
		"shutdown", "nodeagent", "pods end before the machine does", "delay")
	refused := call.Store(&fd)
	if refused == nil {
		h.lock = os.NewFile(uintptr(fd), "inhibitor")
	}
	if err := property(ctx, h.conn, "PreparingForShutdown", &h.begun); err != nil {
		return err
	}
	if refused != nil && !h.begun {
		return fmt.Errorf("have logind wait with a shutdown: %w", refused)
	}
	return nil
}

func property[T any](ctx context.Context, conn *dbus.Conn, name string, to *T) error {
	var v dbus.Variant
	err := conn.Object(service, object).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, manager, name).Store(&v)
	if err == nil {
		err = v.Store(to)
	}
	if err != nil {
		return fmt.Errorf("read %s of logind: %w", name, err)
	}
	return nil
}

// dropIn has kubelet's name, so that a node that changes its agent has one.
const (
	dropIn     = "99-kubelet.conf"
	dropInText = "# How long a shutdown waits for the node's pods to end.\n[Login]\nInhibitDelayMaxSec=%.0f\n"
)

// Logind reads its configuration some time after it was told to, and says when to
// nobody.
const (
	reread  = 100 * time.Millisecond
	rereads = 5
)

// stretch has logind wait for least, where it would not.
func (l *Logind) stretch(ctx context.Context, conn *dbus.Conn, least time.Duration) error {
	delay, err := maxDelay(ctx, conn)
	if err != nil || delay >= least {
		return err
	}
	if err := os.MkdirAll(l.cfg.ConfDir, 0o755); err != nil {
		return fmt.Errorf("have logind wait for longer: %w", err)
	}
	text := fmt.Sprintf(dropInText, least.Seconds())
	if err := replace(filepath.Join(l.cfg.ConfDir, dropIn), text); err != nil {
		return fmt.Errorf("have logind wait for longer: %w", err)
	}
	err = conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1").CallWithContext(ctx,
		"org.freedesktop.systemd1.Manager.KillUnit", 0, "systemd-logind.service", "all", int32(1)).Err // SIGHUP
	if err != nil {
		return fmt.Errorf("have logind read its configuration: %w", err)
	}
	wait := reread
	for range rereads {
		again := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			again.Stop()
			return context.Cause(ctx)
		case <-again.C:
		}
		if delay, err = maxDelay(ctx, conn); err != nil || delay >= least {
			return err
		}
		wait *= 2
	}
	return fmt.Errorf("have logind wait for %v: it waits for %v at most, although %s says otherwise; another file there may have the last word",
		least, delay, filepath.Join(l.cfg.ConfDir, dropIn))
}

func maxDelay(ctx context.Context, conn *dbus.Conn) (time.Duration, error) {
	var micro uint64
	err := property(ctx, conn, "InhibitDelayMaxUSec", &micro)
	return time.Duration(micro) * time.Microsecond, err
}

func replace(path, text string) error {
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := os.WriteFile(temp, []byte(text), 0o644); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return nil
}

// Hold is a shutdown that waits.
type Hold struct {
	conn  *dbus.Conn
	news  chan *dbus.Signal
	begun bool // as it was told last
	told  bool // at all

	mu   sync.Mutex
	lock *os.File // nil: let go
}

var errLost = errors.New("the system bus, or the connection to it, has ended")

// Next waits for a shutdown that begins, or is called off; the first one tells at once
// what is so. After an error nothing more is heard; the machine waits until Release all
// the same.
func (h *Hold) Next(ctx context.Context) (begun bool, err error) {
	if !h.told {
		h.told = true
		return h.begun, nil
	}
	for {
		select {
		case <-ctx.Done():
			_ = h.conn.Close()
			return false, context.Cause(ctx)
		case s, open := <-h.news:
			if !open {
				return false, errLost
			}
			if s.Name != manager+"."+signal || len(s.Body) == 0 {
				continue
			}
			begun, ok := s.Body[0].(bool)
			if !ok || begun == h.begun {
				continue
			}
			h.begun = begun
			if !begun {
				_ = h.conn.Close() // another hold is needed, and comes with one of its own
			}
			return begun, nil
		}
	}
}

// Release lets the machine go.
func (h *Hold) Release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lock != nil {
		_ = h.lock.Close()
		h.lock = nil
	}
}
