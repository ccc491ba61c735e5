package iptables

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
)

// feed is an iptables-nft-restore that stays, and is told of one small change after
// another: to start it and end it is most of what a change costs among a hundred
// services. It is begun by the second change within a while, ended when there was none
// for as long. All it knows of the kernel it asks for anew with each change, as one that
// has just begun (1.8.9; before 1.8.6 that differs, and none stays). It may be used from any goroutine.
type feed struct {
	rest  time.Duration         // for how long it stays without a change
	hello time.Duration         // how long one that begins may take until it answers
	start func(*exec.Cmd) error // starts a program
	again func(pid int)         // is told before each change who makes it

	mu     sync.Mutex
	last   time.Time // of the changes
	barred time.Time // none is begun before
	fed    *fed      // nil: none runs
	idle   *time.Timer
}

const (
	feedRest = time.Minute
	// maxFed is how long a change may be, in bytes: what a longer one needs of memory
	// the program would keep.
	maxFed = 64 << 10
	// maxChanges is how many one program makes: what it may lose of memory does not add up.
	maxChanges = 1000
	feedHello  = 5 * time.Second
	feedBar    = time.Hour // after one that could not be begun
)

// write makes a change, or tells that another way has to be found. After an error the
// change may have been made in part, as by a program of its own.
func (f *feed) write(ctx context.Context, t tool, text []byte) (done bool, err error) {
	if !t.stays || len(text) > maxFed || !f.mu.TryLock() {
		return false, nil
	}
	defer f.mu.Unlock()
	now := time.Now()
	often := now.Sub(f.last) < f.rest
	f.last = now
	if f.fed == nil && (!often || now.Before(f.barred)) {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	for range 2 {
		if f.fed == nil && !f.begin(ctx, t) {
			return false, nil
		}
		f.again(f.fed.c.Process.Pid)
		told, err := f.fed.change(ctx, text)
		if err == nil {
			f.settle()
			return true, nil
		}
		err = f.fed.fail(ctx, err)
		lines := f.fed.lines
		f.leave()
		if told {
			return true, t.judge(ctx, err, text, lines)
		}
	}
	return false, nil // it ends as soon as it has begun
}

// begin starts a program.
func (f *feed) begin(ctx context.Context, t tool) bool {
	hello, cancel := context.WithTimeout(ctx, f.hello)
	defer cancel()
	p, err := feedOf(hello, t, f.start)
	if err != nil && ctx.Err() == nil {
		f.barred = time.Now().Add(feedBar)
	}
	f.fed = p
	return err == nil
}

// settle has the program end in a while, or now, if it has done enough.
func (f *feed) settle() {
	switch {
	case f.fed.changes >= maxChanges || f.fed.shot:
		f.leave()
	case f.idle == nil:
		f.idle = time.AfterFunc(f.rest, f.tired)
	default:
		f.idle.Reset(f.rest)
	}
}

// tired ends a program that had nothing to do.
func (f *feed) tired() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.last) >= f.rest {
		f.leave()
	}
}

// close ends the program, if one runs.
func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leave()
}

func (f *feed) leave() {
	if f.idle != nil {
		f.idle.Stop()
	}
	if f.fed != nil {
		f.fed.end()
		f.fed = nil
	}
}

// fed is the program. It says of each change that it was made by printing the comment
// that comes behind it: line by line only to a terminal.
type fed struct {
	c       *exec.Cmd
	in, out *os.File
	read    *bufio.Reader
	said    head // since the change began
	lines   int  // that it was told before the change
	changes int
	shot    bool // somebody lost patience, perhaps too late
}

func feedOf(ctx context.Context, t tool, start func(*exec.Cmd) error) (*fed, error) {
	out, path, err := terminal()
	if err != nil {
		return nil, fmt.Errorf("open a terminal for %s: %w", t.restore, err)
	}
	p := &fed{c: exec.Command(t.restore, "--noflush", "-w", lockSeconds, "--verbose"), out: out, read: bufio.NewReader(out)}
	p.c.Env = append(os.Environ(), "LC_ALL=C")
	if err := p.launch(path, start); err != nil {
		out.Close()
		return nil, err
	}
	if _, err := p.change(ctx, nil); err != nil {
		err = p.fail(ctx, err)
		p.end()
		return nil, err
	}
	return p, nil
}

// terminal opens one, and tells the path of its other end. Reads of it can be ended.
func terminal() (*os.File, string, error) {
	c, path, err := console.NewPty()
	if err != nil {
		return nil, "", err
	}
	defer c.Close()
	fd, err := unix.FcntlInt(c.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	return os.NewFile(uintptr(fd), path), path, err
}

// launch starts the program between a pipe and the terminal.
func (p *fed) launch(terminal string, start func(*exec.Cmd) error) error {
	out, err := os.OpenFile(terminal, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("open a terminal for %s: %w", p.c.Path, err)
	}
	defer out.Close()
	in, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("feed %s: %w", p.c.Path, err)
	}
	defer in.Close()
	p.in, p.c.Stdin, p.c.Stdout, p.c.Stderr = w, in, out, out
	if err := start(p.c); err != nil {
		w.Close()
		return fmt.Errorf("start %s: %w", p.c.Path, err)
	}
	return nil
}

// change has the program read a text, and waits until it has. told says whether it got
// any of it: one that had ended did not.
func (p *fed) change(ctx context.Context, text []byte) (told bool, err error) {
	stop := context.AfterFunc(ctx, p.shoot)
	p.said.Reset()
	p.changes++
	mark := "#" + strconv.Itoa(p.changes)
	all := append(bytes.Clone(text), mark+"\n"...)
	n, err := p.in.Write(all)
	if heard := p.hear(mark); err == nil {
		err = heard
	}
	if err == nil {
		p.lines += bytes.Count(all, []byte("\n"))
	}
	p.shot = !stop()
	return n > 0, err
}

// shoot ends a program that takes too long. What it has begun itself may hold on to the
// pipe and the terminal.
func (p *fed) shoot() {
	_ = p.c.Process.Kill()
	_ = p.in.SetDeadline(time.Unix(1, 0))
	_ = p.out.SetDeadline(time.Unix(1, 0))
}

// hear reads what the program says up to a line. It fails when the program has ended.
func (p *fed) hear(mark string) error {
	for {
		line, err := p.read.ReadSlice('\n')
		if string(bytes.TrimRight(line, "\r\n")) == mark {
			return nil
		}
		_, _ = p.said.Write(line)
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// fail waits for the end of a program that says nothing more, and tells why it ended.
func (p *fed) fail(ctx context.Context, err error) error {
	defer context.AfterFunc(ctx, p.shoot)()
	p.in.Close()
	if ended := p.c.Wait(); ended != nil {
		err = ended
	}
	return failed(ctx, p.c.Args, err, p.said.String())
}

func (p *fed) end() {
	p.in.Close()
	_ = p.c.Process.Kill() // it is between two changes, or has ended
	_ = p.c.Wait()
	p.out.Close()
}
