package main_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"

	"nodeagent/internal/shimapi"
	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// node is a bed with the shim in its PATH and what a daemon would keep.
type node struct {
	t      *testing.T
	bed    *bed.Bed
	ctd    *containerd.Client
	img    containerd.Image
	runDir string
	logDir string
	n      atomic.Int64
}

func newNode(t *testing.T) *node {
	b := bed.Containerd(t, bed.Options{})
	if err := b.Import(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, bed: b, runDir: filepath.Join(b.Dir(), "run"), logDir: filepath.Join(b.Dir(), "pods")}
	n.connect()
	return n
}

// connect dials containerd, again after it was restarted.
func (n *node) connect() {
	n.ctd = n.bed.Client(n.t)
	img, err := n.ctd.GetImage(n.t.Context(), image.Shell)
	if err != nil {
		n.t.Fatal(err)
	}
	n.img = img
}

// ctr is one container of a sandbox.
type ctr struct {
	n       *node
	id      string
	sandbox string
	uri     shimapi.LogURI
	c       containerd.Container
	task    containerd.Task
	wait    <-chan containerd.ExitStatus
}

// bundle is containerd's directory of the container's task.
func (k *ctr) bundle() string {
	return filepath.Join(k.n.bed.Dir(), "state", "io.containerd.runtime.v2.task", bed.Namespace, k.id)
}

// want says how a container differs from the usual one.
type want struct {
	tty      bool
	stdin    string
	maxSize  int64
	maxFiles int
	runtime  string // the runc; default: that of the bed
	opts     []oci.SpecOpts
}

// shell returns a container of the sandbox that runs a script; it is not
// created yet.
func (n *node) shell(sandbox, script string, w want) *ctr {
	return n.container(sandbox, w, "/bin/sh", "-c", script)
}

func (n *node) container(sandbox string, w want, args ...string) *ctr {
	id := fmt.Sprintf("%s-c%d", sandbox, n.n.Add(1))
	if w.maxFiles == 0 {
		w.maxSize, w.maxFiles = 1<<40, 2
	}
	k := &ctr{n: n, id: id, sandbox: sandbox, uri: shimapi.LogURI{
		Path:    filepath.Join(n.logDir, sandbox, id, "0.log"),
		MaxSize: w.maxSize, MaxFiles: w.maxFiles, Sandbox: sandbox, RunDir: n.runDir,
	}}
	opts := []oci.SpecOpts{
		oci.WithImageConfig(n.img), oci.WithProcessArgs(args...),
		oci.WithCgroup(n.bed.CgroupRoot() + "/" + sandbox + "/" + id),
		oci.WithAnnotations(map[string]string{shimapi.GroupAnnotation: sandbox}),
	}
	if w.tty {
		opts = append(opts, oci.WithTTY)
	}
	c, err := n.ctd.NewContainer(n.t.Context(), id,
		containerd.WithNewSnapshot(id, n.img),
		containerd.WithRuntime(shimapi.Runtime, &options.Options{BinaryName: w.runtime}),
		containerd.WithNewSpec(append(opts, w.opts...)...))
	if err != nil {
		n.t.Fatal(err)
	}
	k.c = c
	return k
}

// stdio tells containerd the URIs; nobody on the client's side has streams.
type stdio struct{ cfg cio.Config }

func (s stdio) Config() cio.Config { return s.cfg }
func (s stdio) Cancel()            {}
func (s stdio) Wait()              {}
func (s stdio) Close() error       { return nil }

// create makes the task.
func (k *ctr) create(ctx context.Context, w want) error {
	cfg := cio.Config{Terminal: w.tty, Stdin: w.stdin, Stdout: k.uri.String()}
	if !w.tty {
		cfg.Stderr = cfg.Stdout
	}
	task, err := k.c.NewTask(ctx, func(string) (cio.IO, error) { return stdio{cfg}, nil })
	if err != nil {
		return err
	}
	k.task = task
	k.wait, err = task.Wait(context.WithoutCancel(ctx))
	return err
}

func (k *ctr) run(w want) *ctr {
	k.n.t.Helper()
	ctx, cancel := context.WithTimeout(k.n.t.Context(), need.Slow(30*time.Second))
	defer cancel()
	if err := k.create(ctx, w); err != nil {
		k.n.t.Fatalf("create %s: %v", k.id, err)
	}
	if err := k.task.Start(ctx); err != nil {
		k.n.t.Fatalf("start %s: %v", k.id, err)
	}
	return k
}

// exit waits for the container's end and returns its code. limit is a host's.
func (k *ctr) exit(limit time.Duration) uint32 {
	k.n.t.Helper()
	limit = need.Slow(limit)
	select {
	case st := <-k.wait:
		if st.Error() != nil {
			k.n.t.Fatalf("wait for %s: %v", k.id, st.Error())
		}
		return st.ExitCode()
	case <-time.After(limit):
		k.n.t.Fatalf("%s did not end within %v; log:\n%.2000s", k.id, limit, k.log())
	}
	return 0
}

func (k *ctr) delete() {
	k.n.t.Helper()
	ctx, cancel := context.WithTimeout(k.n.t.Context(), need.Slow(30*time.Second))
	defer cancel()
	if _, err := k.task.Delete(ctx, containerd.WithProcessKill); err != nil {
		k.n.t.Fatalf("delete %s: %v", k.id, err)
	}
	if err := k.c.Delete(ctx, containerd.WithSnapshotCleanup); err != nil {
		k.n.t.Fatal(err)
	}
}

func (k *ctr) log() string {
	b, _ := os.ReadFile(k.uri.Path)
	return string(b)
}

// content joins the records of a stream: "F" ends a line.
func content(log, stream string) string {
	var out strings.Builder
	for line := range strings.Lines(log) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(parts) != 4 || parts[1] != stream {
			continue
		}
		out.WriteString(parts[3])
		if parts[2] == "F" {
			out.WriteByte('\n')
		}
	}
	return out.String()
}

func (n *node) dial(sandbox string) *shimapi.Client {
	n.t.Helper()
	c, err := shimapi.Dial(n.runDir, sandbox)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	return c
}

func (n *node) stats(sandbox string) shimapi.Stats {
	n.t.Helper()
	st, err := n.dial(sandbox).Stats(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	return st
}

// end tells the shim of a sandbox to go and waits until it is gone.
func (n *node) end(sandbox string) {
	n.t.Helper()
	pid := n.stats(sandbox).Pid
	if err := n.dial(sandbox).Exit(n.t.Context(), false); err != nil {
		n.t.Fatal(err)
	}
	if _, err := shimapi.Dial(n.runDir, sandbox); err == nil {
		n.t.Error("the control socket still answers after exit")
	}
	waitGone(n.t, pid)
}

// waitGone waits for the end of a process that is no child of ours.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for deadline := time.Now().Add(need.Slow(10 * time.Second)); ; {
		n, err := unix.Poll(fds, max(0, int(time.Until(deadline).Milliseconds())))
		if n == 1 {
			return
		}
		if !errors.Is(err, unix.EINTR) || time.Now().After(deadline) {
			t.Fatalf("process %d still lives: %v", pid, err)
		}
	}
}

// eventually tries until ok or the limit, a host's; for what has no event of its
// own.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	limit = need.Slow(limit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); ; {
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		<-tick.C
	}
}

// touch makes a file in the root of a container by its init's /proc entry.
func touch(t *testing.T, pid uint32, path string) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root%s", pid, path), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// nullIO is an exec's streams that go nowhere.
var nullIO cio.Creator = cio.NullIO

var withStdin = containerd.WithStdinCloser
