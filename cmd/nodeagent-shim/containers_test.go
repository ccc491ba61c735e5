package main_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"nodeagent/internal/logs"
	"nodeagent/internal/shimapi"
	"nodeagent/internal/test/need"
)

// TestContainers holds what can share a node, because containerd stays alive.
func TestContainers(t *testing.T) {
	n := newNode(t)
	for name, f := range map[string]func(*node){
		"second container":        secondContainer,
		"start overlaps delete":   startOverlapsDelete,
		"parallel first starts":   parallelFirstStarts,
		"stdout closed":           stdoutClosed,
		"pipe held by a survivor": pipeHeld,
		"long line":               longLine,
		"flood keeps to limits":   floodBound,
		"oom":                     outOfMemory,
		"failed create":           failedCreate,
		"term":                    terminated,
		"no leaks":                noLeaks,
		"many lines both streams": bothStreams,
		"created only":            createdOnly,
		"without runc":            withoutRunc,
		"exec":                    execProcess,
		"exec of a dead client":   execOfDeadClient,
		"user opens stdout":       userOpensStdout,
	} {
		t.Run(name, func(t *testing.T) {
			sub := &node{t: t, bed: n.bed, ctd: n.ctd, img: n.img, runDir: n.runDir, logDir: n.logDir}
			f(sub)
		})
	}
	if left := shims(t, n); len(left) > 0 {
		t.Errorf("shims are left: %v", left)
	}
	if names, _ := filepath.Glob(n.runDir + "/shim/*"); len(names) > 0 {
		t.Errorf("left in the run directory: %v", names)
	}
	sockets, _ := filepath.Glob(filepath.Join(filepath.Dir(n.bed.Address()), "*"))
	for _, p := range sockets {
		if len(filepath.Base(p)) >= 64 { // named by a SHA-256, as shims' are
			t.Errorf("a socket or lock of a shim is left: %s", p)
		}
	}
}

// shims lists the processes of our shim in the bed.
func shims(t *testing.T, n *node) (pids []string) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range lines {
		b, _ := os.ReadFile(p)
		if s := string(b); strings.Contains(s, "/nodeagent-shim\x00") && strings.Contains(s, n.bed.Address()) {
			pids = append(pids, filepath.Base(filepath.Dir(p)))
		}
	}
	return pids
}

func secondContainer(n *node) {
	k := n.shell("second", "exit 3", want{}).run(want{})
	pid := n.stats("second").Pid
	if code := k.exit(10 * time.Second); code != 3 {
		n.t.Errorf("code %d", code)
	}
	k.delete()
	k2 := n.shell("second", "echo two", want{}).run(want{})
	k2.exit(10 * time.Second)
	if again := n.stats("second").Pid; again != pid {
		n.t.Errorf("the second container has shim %d, the first had %d", again, pid)
	}
	if got := content(k2.log(), "stdout"); got != "two\n" {
		n.t.Errorf("log of the second is %q", got)
	}
	k2.delete()
	n.end("second")
}

// With containerd's own shim about half of these fail: it ends with its last
// container while the next is on its way.
func startOverlapsDelete(n *node) {
	last := n.shell("overlap", "exit 0", want{}).run(want{})
	for range 60 {
		last.exit(20 * time.Second)
		next := n.shell("overlap", "exit 0", want{})
		var wg sync.WaitGroup
		wg.Go(func() { last.delete() })
		ctx, cancel := context.WithTimeout(n.t.Context(), need.Slow(30*time.Second))
		if err := next.create(ctx, want{}); err != nil {
			n.t.Errorf("NewTask beside the delete of the last: %v", err)
		} else if err := next.task.Start(ctx); err != nil {
			n.t.Errorf("Start: %v", err)
		}
		cancel()
		wg.Wait()
		if n.t.Failed() {
			return
		}
		last = next
	}
	last.exit(20 * time.Second)
	last.delete()
	n.end("overlap")
}

func parallelFirstStarts(n *node) {
	const pods, each = 6, 4
	all := make(chan *ctr, pods*each)
	var wg sync.WaitGroup
	for p := range pods {
		for range each {
			k := n.shell(fmt.Sprintf("par%d", p), "sleep 100", want{})
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(n.t.Context(), need.Slow(60*time.Second))
				defer cancel()
				if err := k.create(ctx, want{}); err != nil {
					n.t.Errorf("create %s: %v", k.id, err)
				} else if err := k.task.Start(ctx); err != nil {
					n.t.Errorf("start %s: %v", k.id, err)
				}
				all <- k
			})
		}
	}
	wg.Wait()
	close(all)
	if n.t.Failed() {
		return
	}
	if got := shims(n.t, n); len(got) != pods {
		n.t.Errorf("%d pods have %d shims: %v", pods, len(got), got)
	}
	for k := range all {
		k.delete()
	}
	for p := range pods {
		n.end(fmt.Sprintf("par%d", p))
	}
}

func stdoutClosed(n *node) {
	k := n.shell("closed", "echo before; exec >&- 2>&-; sleep 0.2; exit 9", want{}).run(want{})
	if code := k.exit(10 * time.Second); code != 9 {
		n.t.Errorf("code %d", code)
	}
	if got := content(k.log(), "stdout"); got != "before\n" {
		n.t.Errorf("log %q", got)
	}
	k.delete()
	n.end("closed")
}

// Somebody who holds the pipe and goes on writing delays the exit record by a
// second at most, and what init wrote is complete.
func pipeHeld(n *node) {
	k := n.shell("held", "while ! [ -e /go ]; do sleep 0.02; done; /podtool print 5000; exit 4", want{}).run(want{})
	pipe, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/1", k.task.Pid()), os.O_WRONLY, 0)
	if err != nil {
		n.t.Fatal(err)
	}
	defer pipe.Close()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = pipe.Write([]byte("survivor\n"))
			}
		}
	})
	touch(n.t, k.task.Pid(), "/go")
	if code := k.exit(5 * time.Second); code != 4 {
		n.t.Errorf("code %d", code)
	}
	if _, err := shimapi.ReadExit(n.runDir, k.id); err != nil {
		n.t.Error(err)
	}
	if got := content(k.log(), "stdout"); strings.Count(got, "line ") != 5000 {
		n.t.Errorf("%d lines of init, want 5000", strings.Count(got, "line "))
	}
	close(stop)
	wg.Wait()
	k.delete()
	n.end("held")
}

// A line of 1 GiB costs no memory more than short lines did, and stays in the limits. A
// shim at rest has given its heap back, more or less of it as the moment has it: so it
// carries short lines first. What it needs to tell of an end is not looked at.
func longLine(n *node) {
	w := want{maxSize: 8 << 20, maxFiles: 3}
	k := n.shell("long", "echo begin; while ! [ -e /go ]; do sleep 0.02; done; yes short | head -c 67108866; : >/warm;"+
		"while ! [ -e /more ]; do sleep 0.02; done; dd if=/dev/zero bs=1M count=1024 2>/dev/null; : >/done;"+
		"while ! [ -e /end ]; do sleep 0.02; done; echo; echo end", w).run(w)
	pid, init := n.stats("long").Pid, k.task.Pid()
	peak := func(until string) (most int) {
		for {
			most = max(most, anonymous(n.t, pid))
			if size := dirSize(n.t, filepath.Dir(k.uri.Path)); size > 24<<20 {
				n.t.Fatalf("%d bytes on disk", size)
			}
			if _, err := os.Stat(fmt.Sprintf("/proc/%d/root/%s", init, until)); err == nil {
				return most
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	before := anonymous(n.t, pid)
	touch(n.t, init, "/go")
	short := peak("warm")
	touch(n.t, init, "/more")
	long := peak("done")
	touch(n.t, init, "/end")
	k.exit(10 * time.Second)
	n.t.Logf("memory grew by %d bytes with short lines, and by %d with the long one", short-before, long-short)
	if long-short > 2<<20 {
		n.t.Errorf("memory grew by %d bytes", long-short)
	}
	if !strings.HasSuffix(content(k.log(), "stdout"), "\x00\nend\n") {
		n.t.Errorf("log ends %.100q", k.log()[max(0, len(k.log())-100):])
	}
	k.delete()
	n.end("long")
}

func floodBound(n *node) {
	w := want{maxSize: 1 << 20, maxFiles: 3}
	k := n.container("flood", w, "/podtool", "flood", "2s").run(w)
	dir := filepath.Dir(k.uri.Path)
	for done := false; !done; {
		select {
		case <-k.wait:
			done = true
		default:
			if size := dirSize(n.t, dir); size > 3<<20 {
				n.t.Fatalf("%d bytes on disk, limit %d", size, 3<<20)
			}
		}
	}
	st := n.stats("flood").Containers[0]
	if st.DroppedFiles == 0 || st.DroppedLines != 0 {
		n.t.Errorf("stats %+v", st)
	}
	var names []string
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, _ error) error {
		if !d.IsDir() && p != k.uri.Path {
			names = append(names, p)
		}
		return nil
	})
	last := ""
	for _, p := range append(names, k.uri.Path) {
		b, _ := os.ReadFile(p)
		for line := range strings.Lines(string(b)) {
			r, err := logs.Parse([]byte(line))
			if err != nil {
				n.t.Fatal(err)
			}
			if num := string(r.Content[:min(12, len(r.Content))]); num <= last && num[0] != 'e' {
				n.t.Fatalf("%s after %s", num, last)
			} else {
				last = num
			}
		}
	}
	if !strings.HasPrefix(last, "end ") {
		n.t.Errorf("the last line is %q", last)
	}
	n.t.Logf("%.0f MB in 2 s with %d rotations", float64(st.Bytes)/1e6, st.Rotations)
	k.delete()
	n.end("flood")
}

// dirSize sums the files; one that is renamed meanwhile may be missed, none is
// counted twice.
func dirSize(t *testing.T, dir string) (total int64) {
	t.Helper()
	seen := map[uint64]bool{}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(dir, e.Name()), &st) == nil && !seen[st.Ino] {
			seen[st.Ino] = true
			total += st.Size
		}
	}
	return total
}

func outOfMemory(n *node) {
	w := want{opts: []oci.SpecOpts{oci.WithMemoryLimit(24 << 20)}}
	k := n.container("oom", w, "/podtool", "alloc", "200").run(w)
	if code := k.exit(20 * time.Second); code != 137 {
		n.t.Errorf("code %d, want 137", code)
	}
	r, err := shimapi.ReadExit(n.runDir, k.id)
	if err != nil || r.OOMKills == 0 {
		n.t.Errorf("record %+v, %v; want OOM kills", r, err)
	}
	k.delete()
	n.end("oom")
}

func failedCreate(n *node) {
	k := n.container("bad", want{}, "/no/such/program")
	err := k.create(n.t.Context(), want{})
	if err == nil || !strings.Contains(err.Error(), "no such file") {
		n.t.Errorf("create: %v", err)
	}
	if st := n.stats("bad"); len(st.Containers) != 0 {
		n.t.Errorf("stats %+v", st)
	}
	ok := n.shell("bad", "echo ok", want{}).run(want{})
	ok.exit(10 * time.Second)
	if got := content(ok.log(), "stdout"); got != "ok\n" {
		n.t.Errorf("log %q", got)
	}
	ok.delete()
	if err := k.c.Delete(n.t.Context(), containerd.WithSnapshotCleanup); err != nil {
		n.t.Error(err)
	}
	n.end("bad")
}

// SIGTERM ends a shim when nothing runs in it any more: at a shutdown the service
// manager waits for all that it has sent it to, once, and containers are not
// deleted then. What is on record stays what it was.
func terminated(n *node) {
	k := n.shell("term", "while ! [ -e /go ]; do sleep 0.02; done; echo still here; exit 7", want{}).run(want{})
	dead := n.shell("term", "exit 5", want{}).run(want{})
	if code := dead.exit(10 * time.Second); code != 5 {
		n.t.Errorf("the first one ended with %d", code)
	}
	pid := n.stats("term").Pid
	if _, err := os.Stat(k.bundle()); err != nil {
		n.t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
	touch(n.t, k.task.Pid(), "/go")
	waitGone(n.t, pid)
	if got := content(k.log(), "stdout"); got != "still here\n" {
		n.t.Errorf("log %q", got)
	}
	left(k, 7)
	left(dead, 5)

	k = n.shell("over", "exit 3", want{}).run(want{})
	k.exit(10 * time.Second)
	pid = n.stats("over").Pid
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
	waitGone(n.t, pid)
	left(k, 3)
}

// left deletes a container whose shim is gone, and looks at what it left. The
// bundle goes last: a task is called not found as soon as its shim's connection
// ends, while containerd's "delete" of the shim still runs.
func left(k *ctr, code uint32) {
	k.n.t.Helper()
	eventually(k.n.t, 10*time.Second, "containerd has cleaned up after the shim", func() bool {
		_, gone := os.Stat(k.bundle())
		_, err := k.c.Task(k.n.t.Context(), nil)
		return os.IsNotExist(gone) && errdefs.IsNotFound(err)
	})
	if r, err := shimapi.ReadExit(k.n.runDir, k.id); err != nil || r.ExitCode != code || r.ShimLost {
		k.n.t.Errorf("record of %s: %+v, %v; want %d", k.id, r, err, code)
	}
	if err := k.c.Delete(k.n.t.Context(), containerd.WithSnapshotCleanup); err != nil {
		k.n.t.Error(err)
	}
}

func noLeaks(n *node) {
	keep := n.shell("leaks", "sleep 1000", want{}).run(want{})
	first := n.shell("leaks", "echo 1", want{}).run(want{})
	first.exit(10 * time.Second)
	first.delete()
	pid := n.stats("leaks").Pid
	fds, routines := openFiles(n.t, pid), n.stats("leaks").Goroutines
	for range 100 {
		k := n.shell("leaks", "echo 1; echo 2 >&2", want{}).run(want{})
		k.exit(10 * time.Second)
		k.delete()
	}
	var now []string
	var running int
	defer func() {
		if n.t.Failed() {
			n.t.Logf("descriptors before and now:\n%q\n%q\ngoroutines %d and %d", fds, now, routines, running)
		}
	}()
	eventually(n.t, 5*time.Second, "as many descriptors and goroutines as before", func() bool {
		now, running = openFiles(n.t, pid), n.stats("leaks").Goroutines
		return len(now) <= len(fds) && running <= routines
	})
	_ = filepath.WalkDir(n.runDir, func(p string, d fs.DirEntry, _ error) error {
		if d != nil && d.Type()&fs.ModeNamedPipe != 0 {
			n.t.Errorf("a FIFO is left: %s", p)
		}
		return nil
	})
	keep.delete()
	n.end("leaks")
}

func openFiles(t *testing.T, pid int) (names []string) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		l, _ := os.Readlink(filepath.Join(dir, e.Name()))
		names = append(names, l)
	}
	return names
}

func bothStreams(n *node) {
	k := n.shell("both", "i=0; while [ $i -lt 2000 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done; printf 'a\\0b\\377c\\r\\n'", want{}).run(want{})
	k.exit(30 * time.Second)
	var outs, errs strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&outs, "o%d\n", i)
		fmt.Fprintf(&errs, "e%d\n", i)
	}
	outs.WriteString("a\x00b\xffc\r\n")
	if log := k.log(); content(log, "stdout") != outs.String() || content(log, "stderr") != errs.String() {
		n.t.Errorf("log of %d bytes is not what was written", len(log))
	}
	k.delete()
	n.end("both")
}

// A container that was created and never started can be deleted.
func createdOnly(n *node) {
	k := n.shell("created", "echo never", want{})
	if err := k.create(n.t.Context(), want{}); err != nil {
		n.t.Fatal(err)
	}
	if _, err := os.Stat(k.uri.Path); err != nil {
		n.t.Errorf("no log file before the start: %v", err)
	}
	k.delete()
	n.end("created")
}

// An exec's exit is no exit of the container.
func execProcess(n *node) {
	k := n.shell("exec", "sleep 1000", want{}).run(want{})
	ctx := n.t.Context()
	spec, err := k.c.Spec(ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	p := *spec.Process
	p.Args = []string{"/bin/sh", "-c", "exit 5"}
	e, err := k.task.Exec(ctx, "e1", &p, nullIO)
	if err != nil {
		n.t.Fatal(err)
	}
	wait, err := e.Wait(ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := e.Start(ctx); err != nil {
		n.t.Fatal(err)
	}
	if st := <-wait; st.ExitCode() != 5 {
		n.t.Errorf("exec ended with %d, %v", st.ExitCode(), st.Error())
	}
	if _, err := e.Delete(ctx); err != nil {
		n.t.Error(err)
	}
	if _, err := shimapi.ReadExit(n.runDir, k.id); err == nil {
		n.t.Error("the exec's end was recorded as the container's")
	}
	k.delete()
	n.end("exec")
}

// An exec whose client died before its FIFOs were opened does not start, and
// nothing of it runs on.
func execOfDeadClient(n *node) {
	k := n.shell("orphan", "sleep 1000", want{}).run(want{})
	spec, err := k.c.Spec(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	p := *spec.Process
	p.Args = []string{"/bin/sleep", "4321"}
	cfg := cio.Config{Stdout: filepath.Join(n.t.TempDir(), "stdout")}
	if err := unix.Mkfifo(cfg.Stdout, 0o600); err != nil {
		n.t.Fatal(err)
	}
	e, err := k.task.Exec(n.t.Context(), "e1", &p, func(string) (cio.IO, error) { return stdio{cfg}, nil })
	if err != nil {
		n.t.Fatal(err)
	}
	// The deadline is the shim's too: the wait for a reader ends with it.
	ctx, cancel := context.WithTimeout(n.t.Context(), need.Slow(2*time.Second))
	defer cancel()
	if err := e.Start(ctx); err == nil {
		n.t.Fatal("it started without a reader")
	}
	eventually(n.t, 10*time.Second, "only the container's own process", func() bool {
		all, err := k.task.Pids(n.t.Context())
		return err == nil && len(all) == 1 && all[0].Pid == k.task.Pid()
	})
	if _, err := e.Delete(n.t.Context()); err != nil {
		n.t.Error(err)
	}
	k.delete()
	n.end("orphan")
}

// A process that is not root can open its own stdout by name.
func userOpensStdout(n *node) {
	w := want{opts: []oci.SpecOpts{oci.WithUserID(1234)}}
	k := n.shell("user", "id -u; echo by name > /dev/stdout; echo err > /dev/stderr", w).run(w)
	k.exit(10 * time.Second)
	if log := k.log(); content(log, "stdout") != "1234\nby name\n" || content(log, "stderr") != "err\n" {
		n.t.Errorf("log %q", log)
	}
	k.delete()
	n.end("user")
}

// withoutRunc proves on real containers that runc is not run to start one, nor to
// delete one that has ended, and that runc agrees afterwards that it runs, or is gone.
func withoutRunc(n *node) {
	log := filepath.Join(n.t.TempDir(), "verbs")
	wrapper := filepath.Join(n.t.TempDir(), "runc")
	script := "#!/bin/sh\necho \"$@\" >>" + log + "\nexec " + filepath.Join(n.bed.Tools(), "runc") + " \"$@\"\n"
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		n.t.Fatal(err)
	}
	k := n.shell("fifo", "echo ran; sleep 1000", want{runtime: wrapper}).run(want{})
	eventually(n.t, 10*time.Second, "the container's line", func() bool { return content(k.log(), "stdout") == "ran\n" })
	root := notRun(n, log, "start")
	state := func() (string, error) {
		out, err := exec.Command(filepath.Join(n.bed.Tools(), "runc"), "--root", root, "state", k.id).CombinedOutput()
		return string(out), err
	}
	if out, err := state(); err != nil || !strings.Contains(out, `"running"`) {
		n.t.Errorf("runc says: %v\n%s", err, out)
	}
	k.delete()
	notRun(n, log, "delete")
	if out, err := state(); err == nil || !strings.Contains(out, "does not exist") {
		n.t.Errorf("after its deletion runc says: %v\n%s", err, out)
	}
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == k.id {
			n.t.Errorf("after its deletion there is %s", path)
		}
		return nil // what goes meanwhile is another's
	})
	if err != nil {
		n.t.Error(err)
	}
	n.end("fifo")
}

// notRun demands that runc was not run with the verb, and returns its root.
func notRun(n *node, log, verb string) (root string) {
	n.t.Helper()
	verbs, err := os.ReadFile(log)
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range strings.Lines(string(verbs)) {
		args := strings.Fields(line)
		if slices.Contains(args, verb) {
			n.t.Errorf("runc was run to %s it: %s", verb, line)
		}
		if len(args) > 1 && args[0] == "--root" {
			root = args[1]
		}
	}
	return root
}
