// Package logindtest is a behavioural fake of systemd's login manager, on a real bus of
// its own. It belongs to tests; all of it may be called from any goroutine.
package logindtest

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// Names on the bus.
const (
	service = "org.freedesktop.login1"
	object  = dbus.ObjectPath("/org/freedesktop/login1")
	manager = "org.freedesktop.login1.Manager"
)

// limit is how long a bus may take to let somebody in.
const limit = 30 * time.Second

const busConf = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/><allow user="*"/></policy>
</busconfig>
`

// Manager is a logind and the part of systemd that signals it, on a real bus: it gives
// locks away while no shutdown is under way, and reads its configuration when told to.
type Manager struct {
	Address string // of the bus
	ConfDir string // of drop-ins

	t    testing.TB
	conn *dbus.Conn
	bus  *exec.Cmd

	mu       sync.Mutex
	delay    time.Duration
	deaf     bool
	going    bool
	asked    []string
	released chan struct{} // closed when the latest lock was let go
}

// New starts a bus with a logind that would wait for delay. Both end with the test.
func New(t testing.TB, delay time.Duration) *Manager {
	t.Helper()
	dir := t.TempDir()
	m := &Manager{
		t: t, delay: delay, released: make(chan struct{}),
		ConfDir: filepath.Join(dir, "logind.conf.d"), Address: "unix:path=" + filepath.Join(dir, "bus"),
	}
	file := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, busConf, filepath.Join(dir, "bus")), 0o600); err != nil {
		t.Fatal(err)
	}
	m.bus = exec.Command("dbus-daemon", "--nofork", "--nopidfile", "--nosyslog", "--print-address", "--config-file="+file)
	out, err := m.bus.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	m.bus.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.bus.Start(); err != nil {
		t.Fatalf("start a bus (make deps installs it): %v", err)
	}
	t.Cleanup(func() { _ = m.bus.Process.Kill(); _ = m.bus.Wait() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil { // it listens
		t.Fatal(err)
	}
	refused := time.AfterFunc(limit, func() { _ = m.bus.Process.Kill() }) // to connect has no deadline
	if m.conn, err = dbus.Connect(m.Address); err != nil {
		t.Fatal(err)
	}
	refused.Stop()
	t.Cleanup(func() { _ = m.conn.Close() })
	for _, err := range []error{
		m.conn.Export(m, object, manager), m.conn.Export(properties{m}, object, "org.freedesktop.DBus.Properties"),
		m.conn.Export(m, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{service, "org.freedesktop.systemd1"} {
		if reply, err := m.conn.RequestName(name, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
			t.Fatal(reply, err)
		}
	}
	return m
}

// Inhibit is logind's.
func (m *Manager) Inhibit(what, who, why, mode string) (dbus.UnixFD, *dbus.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, fmt.Sprintf("inhibit %s by %s, %s", what, who, mode))
	if m.going {
		return 0, dbus.NewError("org.freedesktop.login1.OperationInProgress", []any{"The operation inhibition has been requested for is already running"})
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 0, dbus.MakeFailedError(err)
	}
	released := make(chan struct{})
	m.released = released
	go func() {
		_, _ = r.Read(make([]byte, 1)) // until nobody has the other end
		_ = r.Close()
		close(released)
	}()
	fd := w.Fd()
	time.AfterFunc(time.Second, func() { _ = w.Close() }) // not before the answer was sent
	return dbus.UnixFD(fd), nil
}

// KillUnit is systemd's.
func (m *Manager) KillUnit(unit, who string, signal int32) *dbus.Error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, fmt.Sprintf("signal %d to %s of %s", signal, who, unit))
	if text, err := os.ReadFile(filepath.Join(m.ConfDir, "99-kubelet.conf")); err == nil && !m.deaf {
		var seconds int
		if _, err := fmt.Sscanf(string(text[strings.Index(string(text), "[Login]"):]), "[Login]\nInhibitDelayMaxSec=%d\n", &seconds); err == nil {
			m.delay = time.Duration(seconds) * time.Second
		}
	}
	return nil
}

type properties struct{ m *Manager }

// Get is that of every object.
func (p properties) Get(of, name string) (dbus.Variant, *dbus.Error) {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	switch of + "." + name {
	case manager + ".InhibitDelayMaxUSec":
		return dbus.MakeVariant(uint64(p.m.delay / time.Microsecond)), nil
	case manager + ".PreparingForShutdown":
		return dbus.MakeVariant(p.m.going), nil
	}
	return dbus.Variant{}, dbus.MakeFailedError(errors.New("unknown property"))
}

// Prepare tells of a shutdown that begins, or is called off.
func (m *Manager) Prepare(going bool) {
	m.t.Helper()
	m.mu.Lock()
	m.going = going
	m.mu.Unlock()
	if err := m.conn.Emit(object, manager+".PrepareForShutdown", going); err != nil {
		m.t.Fatal(err)
	}
}

// Released is closed when the lock that was given away last was let go.
func (m *Manager) Released() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.released
}

// Deafen has it read its configuration no more.
func (m *Manager) Deafen() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deaf = true
}

// Asked is what it was asked since the last time.
func (m *Manager) Asked() (all []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all, m.asked = m.asked, nil
	return all
}

// Kill ends the bus.
func (m *Manager) Kill() {
	m.t.Helper()
	if err := m.bus.Process.Kill(); err != nil {
		m.t.Fatal(err)
	}
}
