//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	eventstypes "github.com/containerd/containerd/api/events"
	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"nodeagent/internal/logs"
	"nodeagent/internal/shimapi"
)

// drainTime bounds how long what a dead container left in its pipes may delay
// its exit record.
const drainTime = time.Second

// container is what we know of a container beside the task service.
type container struct {
	id             string
	uri            shimapi.LogURI
	stdout, stderr string // as the client gave them
	stdin          string
	terminal, once bool

	log    *logs.Writer
	tee    tee
	pumps  []*pump
	theirs []*os.File // the container's ends, until it is created

	created  chan struct{} // closed when Create is over
	exited   chan struct{} // closed when the exit of init is known
	recorded chan struct{} // closed when its record is on disk, or cannot be
	gone     chan struct{} // closed when the container is deleted

	mu        sync.Mutex
	stdinFile *os.File
	pid       int
	startedAt time.Time
	oom       oomCount
	exitOnce  sync.Once
	goneOnce  sync.Once
}

func newContainer(r *taskAPI.CreateTaskRequest, uri shimapi.LogURI) (*container, error) {
	w, err := logs.New(logs.Config{Path: uri.Path, MaxSize: uri.MaxSize, MaxFiles: uri.MaxFiles})
	if err != nil {
		return nil, err
	}
	return &container{
		id: r.ID, uri: uri, stdin: r.Stdin, stdout: r.Stdout, stderr: r.Stderr,
		terminal: r.Terminal, once: r.Stdin == shimapi.StdinOnceURI, log: w,
		created: make(chan struct{}), exited: make(chan struct{}),
		recorded: make(chan struct{}), gone: make(chan struct{}),
	}, nil
}

// pipes makes the container's stdio: pipes of ours that its init gets directly.
func (c *container) pipes() (stdio, error) {
	var s stdio
	for _, one := range []struct {
		name logs.Name
		kind shimapi.FrameType
		file **os.File
	}{{logs.Stdout, shimapi.FrameStdout, &s.out}, {logs.Stderr, shimapi.FrameStderr, &s.err}} {
		ours, theirs, err := newPipe(true)
		if err != nil {
			return s, err
		}
		*one.file = theirs
		c.theirs = append(c.theirs, theirs)
		if err := c.addPump(ours, one.name, one.kind); err != nil {
			return s, err
		}
	}
	if c.stdin == "" {
		return s, nil
	}
	ours, theirs, err := newPipe(false)
	if err != nil {
		return s, err
	}
	s.in, c.stdinFile = theirs, ours
	c.theirs = append(c.theirs, theirs)
	return s, nil
}

// fifos makes the stdio of a container with a terminal: containerd's console
// copies to and from FIFOs. Our ends are open before it looks for them; the
// names are needed only while Create runs.
func (c *container) fifos(bundle string) (in, out string, err error) {
	out = filepath.Join(bundle, "tty-out")
	file, err := openFIFO(out, os.O_RDONLY)
	if err != nil {
		return "", "", err
	}
	if err := c.addPump(file, logs.Stdout, shimapi.FrameStdout); err != nil {
		return "", "", err
	}
	if c.stdin == "" {
		return "", out, nil
	}
	in = filepath.Join(bundle, "tty-in")
	c.stdinFile, err = openFIFO(in, os.O_RDWR) // for reading too: the other end opens later
	return in, out, err
}

func openFIFO(path string, mode int) (*os.File, error) {
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	return os.OpenFile(path, mode|unix.O_NONBLOCK, 0)
}

func (c *container) addPump(file *os.File, name logs.Name, kind shimapi.FrameType) error {
	p, err := newPump(file, c.log.Stream(name), func(b []byte) { c.tee.write(kind, b) })
	if err != nil {
		return err
	}
	c.pumps = append(c.pumps, p)
	return nil
}

// begin starts to carry output; the container's init exists but does not run.
func (c *container) begin(pid int) {
	c.mu.Lock()
	c.pid, c.oom = pid, countOOM(oomFile(pid))
	c.mu.Unlock()
	if err := c.log.Open(); err != nil {
		log.L.WithError(err).WithField("container", c.id).Warn("open container log")
	}
	for _, p := range c.pumps {
		go p.run()
	}
	close(c.created)
}

// abandon undoes a creation that failed.
func (c *container) abandon() {
	for _, p := range c.pumps {
		_ = p.file.Close()
		close(p.done)
	}
	close(c.created)
	c.close()
}

// releaseTheirs closes the container's ends, so that its death ends our reads.
func (c *container) releaseTheirs() {
	for _, f := range c.theirs {
		_ = f.Close()
	}
	c.theirs = nil
}

// starting notes the moment before init begins to run.
func (c *container) starting() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.startedAt.IsZero() {
		c.startedAt = time.Now()
	}
}

// finish stores what is left of the output and the exit record, then lets
// everybody know: subscribers by publish, and then who waits, so that the event
// of a delete cannot overtake that of the exit.
func (c *container) finish(ev *eventstypes.TaskExit, publish func()) {
	<-c.created
	c.mu.Lock()
	record := shimapi.ExitRecord{
		ContainerID: c.id, SandboxID: c.uri.Sandbox, Pid: int(ev.Pid), ExitCode: ev.ExitStatus,
		StartedAt: c.startedAt, ExitedAt: ev.ExitedAt.AsTime(), OOMKills: c.oom.kills(),
	}
	c.mu.Unlock()
	c.drain()
	err := shimapi.WriteExit(c.uri.RunDir, record)
	publish()
	close(c.recorded)
	c.tee.end()
	c.closeStdin()
	if err != nil {
		log.L.WithError(err).WithField("container", c.id).Error("record exit; will try again")
		go c.retryRecord(record)
	}
}

// retryRecord writes the record as soon as there is room for it again. The
// task keeps its exit code meanwhile, which is why nobody waits for this.
func (c *container) retryRecord(record shimapi.ExitRecord) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-c.gone:
			return
		case <-tick.C:
			if shimapi.WriteExit(c.uri.RunDir, record) == nil {
				return
			}
		}
	}
}

// drain brings what the dead init had written into the log.
func (c *container) drain() {
	// A deadline that stays over once it is: one is for all pumps.
	limit, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	for _, p := range c.pumps {
		if c.terminal {
			// containerd's console copies up to its end: only that tells.
			select {
			case <-p.done:
				continue
			case <-limit.Done():
				return
			}
		}
		if !p.flushed(limit.Done()) {
			log.L.WithField("container", c.id).Warn("log is behind at exit")
			return
		}
	}
}

// awaitRecord waits, after init's exit was seen, until its record is on disk.
func (c *container) awaitRecord(ctx context.Context) {
	timer := time.NewTimer(5 * time.Second) // drain takes 1 s; this is for a hung disk
	defer timer.Stop()
	select {
	case <-c.recorded:
	case <-c.gone:
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (c *container) writeStdin(b []byte) error {
	c.mu.Lock()
	f := c.stdinFile
	c.mu.Unlock()
	if f == nil {
		return os.ErrClosed
	}
	_, err := f.Write(b)
	return err
}

func (c *container) closeStdin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stdinFile != nil {
		_ = c.stdinFile.Close()
		c.stdinFile = nil
	}
}

// close lets go of everything; the container is deleted. A disk that hangs may
// keep a pump, but not the caller.
func (c *container) close() {
	c.goneOnce.Do(func() {
		close(c.gone)
		c.tee.end()
		c.closeStdin()
		c.releaseTheirs()
		limit, cancel := context.WithTimeout(context.Background(), drainTime)
		defer cancel()
		for _, p := range c.pumps {
			if !p.close(limit.Done()) {
				log.L.WithField("container", c.id).Warn("log file hangs; its descriptor stays open")
				return
			}
		}
		_ = c.log.Close()
	})
}

func (c *container) running() bool {
	select {
	case <-c.exited:
		return false
	default:
		return true
	}
}

func (c *container) stats() shimapi.ContainerStats {
	return shimapi.ContainerStats{
		ID: c.id, Running: c.running(), Attached: int(c.tee.count.Load()),
		LogStats: shimapi.LogStats(c.log.Stats()),
	}
}
