// Command agent is a guest's end of the wire: it runs commands and moves files
// for the test on the host, over a virtio-serial port. It is no part of the
// product, and knows nothing of it.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/test/machine/guest/wire"
)

func main() {
	if err := serve("/dev/virtio-ports/nodeagent"); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

// agent serves one port. Its Writer has a lock, since every stream writes.
type agent struct {
	boot string
	mu   sync.Mutex
	out  *wire.Writer
	live map[uint32]*stream // of the reading goroutine alone
	done chan uint32
}

func serve(path string) error {
	port, err := openPort(path)
	if err != nil {
		return err
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	a := &agent{boot: strings.TrimSpace(string(id)), out: wire.NewWriter(port), live: map[uint32]*stream{}, done: make(chan uint32, 1024)}
	if err := a.out.Pad(); err != nil {
		return err
	}
	if err := a.json(wire.Boot, 0, wire.Booted{ID: a.boot}); err != nil {
		return err
	}
	r := wire.NewReader(port)
	for {
		f, err := r.Read()
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		a.forgetDone()
		if err := a.handle(f); err != nil {
			return err
		}
	}
}

func (a *agent) forgetDone() {
	for {
		select {
		case id := <-a.done:
			delete(a.live, id)
		default:
			return
		}
	}
}

func (a *agent) handle(f wire.Frame) error {
	switch f.Kind {
	case wire.Hello:
		var g wire.Greeting
		if err := json.Unmarshal(f.Payload, &g); err != nil {
			return err
		}
		greet(g)
		return a.json(wire.Boot, 0, wire.Booted{ID: a.boot})
	case wire.Start:
		var q wire.Request
		if err := json.Unmarshal(f.Payload, &q); err != nil {
			return err
		}
		a.live[f.Stream] = a.start(f.Stream, q)
	case wire.Data:
		if s := a.live[f.Stream]; s != nil {
			_, _ = s.in.Write(f.Payload) // whoever read it has said why it stopped
		}
	case wire.EOF:
		if s := a.live[f.Stream]; s != nil {
			s.in.Close()
		}
	case wire.Kill:
		if s := a.live[f.Stream]; s != nil {
			s.kill()
		}
	}
	return nil
}

func (a *agent) write(f wire.Frame) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.out.Write(f)
}

func (a *agent) json(k wire.Kind, id uint32, v any) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.out.WriteJSON(k, id, v)
}

// greet sets the clock, which a guest started from a snapshot has wrong, and
// makes its random numbers its own.
func greet(g wire.Greeting) {
	now := time.Unix(0, g.Time)
	if d := time.Until(now); d < -200*time.Millisecond || d > 200*time.Millisecond {
		ts := unix.NsecToTimespec(g.Time)
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
			fmt.Fprintln(os.Stderr, "agent: set the clock:", err)
		}
	}
	f, err := os.OpenFile("/dev/random", os.O_WRONLY, 0)
	if err != nil || len(g.Seed) == 0 {
		return
	}
	defer f.Close()
	_, _ = f.Write(g.Seed)
	const rndReseedCRNG = 0x5207 // <linux/random.h>
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndReseedCRNG, 0)
}

// stream is one command or file.
type stream struct {
	in   io.WriteCloser
	kill func()
}

// output sends what is written to it as Data.
type output struct {
	a  *agent
	id uint32
}

func (o output) Write(b []byte) (int, error) {
	for n := 0; n < len(b); n += wire.MaxPayload {
		if err := o.a.write(wire.Frame{Kind: wire.Data, Stream: o.id, Payload: b[n:min(n+wire.MaxPayload, len(b))]}); err != nil {
			return n, err
		}
	}
	return len(b), nil
}

func (a *agent) start(id uint32, q wire.Request) *stream {
	pr, pw := io.Pipe()
	s := &stream{in: pw, kill: func() { pw.CloseWithError(errors.New("stopped by the host")) }}
	run := func() (int, error) { return 0, put(q.Put, os.FileMode(q.Mode), pr) }
	switch {
	case q.Get != "":
		run = func() (int, error) { return 0, get(q.Get, output{a, id}) }
	case q.Put == "":
		cmd, err := command(q, pr, output{a, id})
		if err == nil {
			err = cmd.Start()
		}
		run = func() (int, error) { return 0, err }
		if err == nil {
			s.kill = func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
			run = func() (int, error) { return wait(cmd) }
		}
	}
	go func() {
		code, err := run()
		e := wire.Ended{Code: code}
		if err != nil {
			e.Error = err.Error()
		}
		pr.CloseWithError(errors.New("ended"))
		_ = a.json(wire.Exit, id, e) // the port's reader sees its end
		a.done <- id
	}()
	return s
}

// command runs argv at the score of an ordinary program: the agent itself must
// survive a guest that runs out of memory.
func command(q wire.Request, in io.Reader, out io.Writer) (*exec.Cmd, error) {
	if len(q.Argv) == 0 {
		return nil, errors.New("no command")
	}
	const ordinary = `echo 0 > /proc/self/oom_score_adj; exec "$@"`
	cmd := exec.Command("/bin/sh", append([]string{"-c", ordinary, "sh"}, q.Argv...)...)
	cmd.Env, cmd.Dir = append(os.Environ(), q.Env...), q.Dir
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 2 * time.Second // a daemon that it left may hold the output
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	go func() {
		_, _ = io.Copy(stdin, in) // ends when the stream does
		stdin.Close()
	}()
	return cmd, nil
}

func wait(cmd *exec.Cmd) (int, error) {
	err := cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if w := exit.Sys().(syscall.WaitStatus); w.Signaled() {
			return 128 + int(w.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	return 0, err
}

// put writes a file in one step, so that a reader never sees half of it.
func put(path string, mode os.FileMode, in io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".putting"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, in)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return os.Rename(tmp, path)
}

func get(path string, out io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(struct{ io.Writer }{out}, f)
	return err
}

// port is a virtio port. While the host's end is closed a read returns at once
// with nothing and a write fails or blocks; poll tells when that changes.
type port struct{ fd int }

func openPort(path string) (*port, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &port{fd}, nil
}

// Read waits for bytes. The kernel says POLLHUP for as long as nobody is at the
// other end and has no event for the moment in which somebody comes: SIGIO would
// tell, and a look every 20 ms does it for a test bed.
func (p *port) Read(b []byte) (int, error) {
	for {
		fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return 0, err
		}
		n, err := unix.Read(p.fd, b)
		if n > 0 {
			return n, nil
		}
		if err != nil && err != unix.EINTR && err != unix.EAGAIN {
			return 0, err
		}
		if fds[0].Revents&unix.POLLHUP != 0 {
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// Write drops what the host is not there to read: it asks again with Hello.
func (p *port) Write(b []byte) (int, error) {
	for n := 0; n < len(b); {
		m, err := unix.Write(p.fd, b[n:])
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
		case err != nil:
			return n, err
		case m <= 0:
			return n, io.ErrShortWrite
		}
		n += max(m, 0)
	}
	return len(b), nil
}
