package bed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a program that the bed started: inside its network namespace and
// cgroup, and dead when the bed's owner is.
type Process struct {
	Pid  int
	name string
	log  string

	exited chan struct{} // closed when the process has been reaped
	err    error         // of Wait; read after exited
	ready  chan struct{} // closed when the process said READY=1
	status sync.Map      // last value of each sd_notify key
}

// Spawn runs argv in the bed with its output appended to log. Each process gets
// a NOTIFY_SOCKET, so that nobody has to guess when it is ready.
func (b *Bed) Spawn(name, log string, env []string, argv ...string) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	notify := filepath.Join(b.dir, "k", fmt.Sprintf("%s-%d.notify", name, b.serial.Add(1)))
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listen for %s to say that it is ready: %w", name, err)
	}
	p := &Process{name: name, log: log, exited: make(chan struct{}), ready: make(chan struct{})}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = append(b.Env(), append(env, "NOTIFY_SOCKET="+notify)...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := b.Start(cmd); err != nil {
		conn.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.Pid = cmd.Process.Pid
	b.spawned.Go(func() { p.listen(conn) })
	b.spawned.Go(func() {
		p.err = cmd.Wait()
		conn.Close()
		os.Remove(notify)
		close(p.exited)
	})
	return p, nil
}

// Start starts cmd inside the bed: in its network namespace and its cgroup, in
// a session of its own, killed when the bed's owner dies. The caller waits for it.
func (b *Bed) Start(cmd *exec.Cmd) error {
	if cmd.Env == nil {
		cmd.Env = b.Env()
	}
	attr := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	var late string // v1 has no way to be born in a cgroup
	if _, err := os.Stat(filepath.Join(b.system, "cgroup.kill")); err == nil {
		dir, err := os.Open(b.system)
		if err != nil {
			return err
		}
		defer dir.Close()
		attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
	} else {
		late = filepath.Join(b.system, "cgroup.procs")
	}
	cmd.SysProcAttr = attr
	if err := b.thread.do(cmd.Start); err != nil {
		return err
	}
	if late != "" {
		return os.WriteFile(late, []byte(fmt.Sprint(cmd.Process.Pid)), 0)
	}
	return nil
}

func (p *Process) listen(conn *net.UnixConn) {
	buf := make([]byte, 4096)
	said := false
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		for line := range strings.SplitSeq(string(buf[:n]), "\n") {
			k, v, _ := strings.Cut(line, "=")
			p.status.Store(k, v)
			if line == "READY=1" && !said {
				said = true
				close(p.ready)
			}
		}
	}
}

// Notified returns the last value that the process sent for an sd_notify key
// (STATUS, WATCHDOG, …), or "".
func (p *Process) Notified(key string) string {
	v, _ := p.status.Load(key)
	s, _ := v.(string)
	return s
}

// WaitReady waits until the process has said READY=1.
func (p *Process) WaitReady(ctx context.Context) error {
	select {
	case <-p.ready:
		return nil
	case <-p.exited:
		return fmt.Errorf("%s ended before it was ready: %v\n%s", p.name, p.err, tail(p.log, 30))
	case <-ctx.Done():
		return fmt.Errorf("wait for %s to be ready: %w\n%s", p.name, ctx.Err(), tail(p.log, 30))
	}
}

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Err returns how the process ended; it waits for the end.
func (p *Process) Err() error { <-p.exited; return p.err }

// Signal sends a signal to the process if it still lives.
func (p *Process) Signal(s unix.Signal) error {
	select {
	case <-p.exited:
		return nil
	default:
	}
	if err := unix.Kill(p.Pid, s); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %v to %s: %w", s, p.name, err)
	}
	return nil
}

// Kill ends the process by SIGKILL and waits until it is gone.
func (p *Process) Kill() error {
	if err := p.Signal(unix.SIGKILL); err != nil {
		return err
	}
	return p.gone(10 * time.Second)
}

// Terminate ends the process by SIGTERM, by SIGKILL after limit, and waits until
// it is gone.
func (p *Process) Terminate(limit time.Duration) error {
	_ = p.Signal(unix.SIGTERM)
	if p.gone(limit) == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("%s did not end within %v of SIGTERM", p.name, limit), p.Kill())
}

func (p *Process) gone(limit time.Duration) error {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-p.exited:
		return nil
	case <-t.C:
		return fmt.Errorf("%s (pid %d) did not end within %v", p.name, p.Pid, limit)
	}
}

// LogTail returns the last n lines of what the process and those before it that
// had the same log have said.
func (p *Process) LogTail(n int) string { return tail(p.log, n) }

// chatter is what containerd says of every plugin and every shim.
var chatter = regexp.MustCompile(`level=info msg="(?:loading plugin"|skip loading plugin"|connecting to shim |shim disconnected"|cleaning up )`)

// tail returns the last n lines of a file, for a failure message.
func tail(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool { return chatter.MatchString(l) })
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return path + ":\n" + strings.Join(lines, "\n")
}
