package cri

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	"nodeagent/internal/cri/spec"
)

const (
	// drainLimit is how long output is read on after the process has ended: a
	// grandchild may hold the pipe for ever.
	drainLimit = 2 * time.Second
	// deleteLimit is beyond the 10 s that the shim itself waits for output.
	deleteLimit = 12 * time.Second
	// execKept is how much of each stream ExecSync keeps.
	execKept = 64 << 10
)

// TerminalSize is the size of a terminal in characters.
type TerminalSize struct{ Width, Height uint16 }

// ExecOptions say what to run in a container and what to connect it to.
type ExecOptions struct {
	Args []string
	TTY  bool
	// Stdin, Stdout and Stderr may be nil. A goroutine reads Stdin until it
	// ends, or fails, or the process has ended and one more read returns. With
	// TTY everything comes on Stdout.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Resize         <-chan TerminalSize // with TTY; may be nil
}

// ExecResult is what ExecSync returns: the first 64 KiB of each stream.
type ExecResult struct {
	Stdout, Stderr []byte
	ExitCode       int32
}

// ExecSync runs a command in a running container and waits for its end, until
// ctx ends; then the process is killed.
func (n *Native) ExecSync(ctx context.Context, id string, args []string) (ExecResult, error) {
	stdout, stderr := &head{limit: execKept}, &head{limit: execKept}
	code, err := n.Exec(ctx, id, ExecOptions{Args: args, Stdout: stdout, Stderr: stderr})
	return ExecResult{Stdout: stdout.buf.Bytes(), Stderr: stderr.buf.Bytes(), ExitCode: code}, err
}

// head keeps the first bytes that are written to it, and takes the rest.
type head struct {
	buf   bytes.Buffer
	limit int
}

func (h *head) Write(p []byte) (int, error) {
	h.buf.Write(p[:min(len(p), h.limit-h.buf.Len())])
	return len(p), nil
}

// killedError is why a command was killed that ran and did not end in time; one
// that could not be run at all has another error.
type killedError struct{ error }

func (e killedError) Unwrap() error { return e.error }

// Killed tells the one from the other.
func (e killedError) Killed() bool { return true }

// Exec runs a command in a running container, with the container's user,
// capabilities and profiles, and returns its exit code. When ctx ends first the
// process is killed, and the error has a method Killed. It works without Run.
func (n *Native) Exec(ctx context.Context, id string, o ExecOptions) (int32, error) {
	n.execs.RLock()
	defer n.execs.RUnlock()
	process, err := n.execProcess(ctx, id, o)
	if err != nil {
		return 0, err
	}
	e := &execution{n: n, container: id, id: "exec-" + newID()[:16], closed: make(chan struct{})}
	streams, err := e.open(o)
	if err != nil {
		return 0, fmt.Errorf("exec: %w", err)
	}
	defer n.removeExecDir(id)
	defer streams.Close()
	defer streams.Cancel()
	if err := e.create(ctx, process, streams.Config()); err != nil {
		return 0, fmt.Errorf("exec: %w", err)
	}
	defer e.delete(ctx)
	return e.run(ctx, streams, o)
}

// execProcess makes the process from the container's own spec.
func (n *Native) execProcess(ctx context.Context, id string, o ExecOptions) (*anypb.Any, error) {
	cctx, cancel := n.call(ctx)
	defer cancel()
	record, err := n.client.ContainerService().Get(cctx, id)
	if err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	if record.Labels[labelKind] != kindContainer {
		return nil, notFound("container", id)
	}
	v, err := typeurl.UnmarshalAny(record.Spec)
	if err != nil {
		return nil, fmt.Errorf("exec: decode container spec: %w", err)
	}
	whole, ok := v.(*specs.Spec)
	if !ok {
		return nil, errors.New("exec: the container's record holds no spec")
	}
	process, err := spec.ExecProcess(whole.Process, o.Args, o.TTY)
	if err != nil {
		return nil, err
	}
	encoded, err := typeurl.MarshalAnyToProto(process)
	if err != nil {
		return nil, fmt.Errorf("exec: encode process: %w", err)
	}
	return encoded, nil
}

// execution is one exec.
type execution struct {
	n             *Native
	container, id string
	closed        chan struct{} // stdin has ended
	held          bool          // somebody holds the output of a process that ended
}

func (e *execution) open(o ExecOptions) (cio.IO, error) {
	var stdin io.Reader
	if o.Stdin != nil {
		stdin = &tellEnd{r: o.Stdin, ended: e.closed}
	}
	opts := []cio.Opt{
		cio.WithStreams(stdin, orDiscard(o.Stdout), orDiscard(o.Stderr)),
		cio.WithFIFODir(e.n.execDir(e.container)),
	}
	if o.TTY {
		opts = append(opts, cio.WithTerminal)
	}
	streams, err := cio.NewCreator(opts...)(e.id)
	if errors.Is(err, os.ErrNotExist) { // the end of another exec took the empty directory away
		streams, err = cio.NewCreator(opts...)(e.id)
	}
	if err != nil {
		return nil, fmt.Errorf("open streams: %w", err)
	}
	return streams, nil
}

// execDir holds the FIFOs of the execs of one process (the daemon, or a command
// line that works without it) in one container.
func (n *Native) execDir(container string) string {
	return filepath.Join(n.cfg.RunDir, "exec", strconv.Itoa(os.Getpid()), container)
}

// removeExecDir removes the directories that are empty: those of the last exec.
func (n *Native) removeExecDir(container string) {
	dir := n.execDir(container)
	if os.Remove(dir) == nil {
		_ = os.Remove(filepath.Dir(dir))
	}
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// tellEnd closes ended when the reader has ended.
type tellEnd struct {
	r     io.Reader
	ended chan struct{}
	told  bool
}

func (t *tellEnd) Read(p []byte) (int, error) {
	c, err := t.r.Read(p)
	if err != nil && !t.told {
		t.told = true
		close(t.ended)
	}
	return c, err
}

func (e *execution) create(ctx context.Context, process *anypb.Any, c cio.Config) error {
	ctx, cancel := e.n.call(ctx)
	defer cancel()
	_, err := e.n.client.TaskService().Exec(ctx, &tasks.ExecProcessRequest{
		ContainerID: e.container, ExecID: e.id, Spec: process,
		Terminal: c.Terminal, Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr,
	})
	return native(err)
}

func (e *execution) run(ctx context.Context, streams cio.IO, o ExecOptions) (int32, error) {
	type end struct {
		code int32
		err  error
	}
	ended := make(chan end, 1)
	wctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	go func() { // ends with wctx
		r, err := e.n.client.TaskService().Wait(wctx, &tasks.WaitRequest{ContainerID: e.container, ExecID: e.id})
		ended <- end{int32(r.GetExitStatus()), native(err)}
	}()
	if err := e.start(ctx); err != nil {
		e.kill(ctx) // containerd may not have said all that it did
		return 0, fmt.Errorf("exec: %w", err)
	}
	stdin := e.closed
	for {
		select {
		case r := <-ended:
			if r.err != nil {
				return 0, fmt.Errorf("exec: wait for the process: %w", r.err)
			}
			e.held = !drain(ctx, streams)
			return r.code, nil
		case size, ok := <-o.Resize:
			if !ok {
				o.Resize = nil
				break
			}
			e.resize(ctx, size)
		case <-stdin:
			stdin = nil
			e.closeStdin(ctx)
		case <-ctx.Done():
			e.kill(ctx)
			return 0, fmt.Errorf("exec: %w", killedError{context.Cause(ctx)})
		}
	}
}

// start outlives ctx: a start that is broken off may have happened, and the
// process must be killed then.
func (e *execution) start(ctx context.Context) error {
	ctx, cancel := e.n.call(context.WithoutCancel(ctx))
	defer cancel()
	_, err := e.n.client.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: e.container, ExecID: e.id})
	return native(err)
}

// drain waits for the rest of the output, but not for ever, and no longer than the
// caller: how the process ended is known. It returns whether that was the end of it.
func drain(ctx context.Context, streams cio.IO) bool {
	done := make(chan struct{})
	go func() { // ends when the streams are cancelled at the latest
		streams.Wait()
		close(done)
	}()
	t := time.NewTimer(drainLimit)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

func (e *execution) resize(ctx context.Context, size TerminalSize) {
	ctx, cancel := e.n.call(ctx)
	defer cancel()
	_, err := e.n.client.TaskService().ResizePty(ctx, &tasks.ResizePtyRequest{
		ContainerID: e.container, ExecID: e.id, Width: uint32(size.Width), Height: uint32(size.Height),
	})
	if err != nil {
		e.n.log.Debug("cannot resize a terminal", "container", e.container, "err", err)
	}
}

func (e *execution) closeStdin(ctx context.Context) {
	ctx, cancel := e.n.call(ctx)
	defer cancel()
	_, err := e.n.client.TaskService().CloseIO(ctx, &tasks.CloseIORequest{ContainerID: e.container, ExecID: e.id, Stdin: true})
	if err != nil {
		e.n.log.Debug("cannot close stdin of an exec", "container", e.container, "err", err)
	}
}

func (e *execution) kill(ctx context.Context) {
	ctx, cancel := e.n.call(context.WithoutCancel(ctx))
	defer cancel()
	_, err := e.n.client.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: e.container, ExecID: e.id, Signal: uint32(unix.SIGKILL)})
	if errdefs.IsFailedPrecondition(native(err)) {
		return // it was never started
	}
	if err := ignoreNotFound(native(err)); err != nil {
		e.n.log.Warn("cannot kill an exec", "container", e.container, "err", err)
		return
	}
	_, _ = e.n.client.TaskService().Wait(ctx, &tasks.WaitRequest{ContainerID: e.container, ExecID: e.id})
}

// delete removes the exec from the shim. That takes the shim 10 s when a
// grandchild holds the output, which nobody waits for.
func (e *execution) delete(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	done := make(chan struct{})
	e.n.settles.run(func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(ctx, deleteLimit)
		defer cancel()
		_, err := e.n.client.TaskService().DeleteProcess(ctx, &tasks.DeleteProcessRequest{ContainerID: e.container, ExecID: e.id})
		if err := ignoreNotFound(native(err)); err != nil {
			e.n.log.Debug("cannot delete an exec", "container", e.container, "err", err)
		}
	})
	if e.held {
		return // it would be waited for in vain
	}
	t := time.NewTimer(drainLimit)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}
