package main_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/shimapi"
)

// A hung containerd delays neither log nor exit record, also when far more
// happens than its event queue holds.
func TestContainerdHung(t *testing.T) {
	n := newNode(t)
	var all []*ctr
	for range 8 {
		all = append(all, n.shell("s1", "while ! [ -e /go ]; do sleep 0.02; done; /podtool print 1000; exit 6", want{}).run(want{}))
	}
	if err := n.bed.Stop(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for _, k := range all {
		touch(t, k.task.Pid(), "/go")
	}
	for _, k := range all {
		eventually(t, 10*time.Second, "an exit record while containerd hangs", func() bool {
			r, err := shimapi.ReadExit(n.runDir, k.id)
			return err == nil && r.ExitCode == 6
		})
		if got := content(k.log(), "stdout"); strings.Count(got, "\n") != 1000 {
			t.Errorf("%d lines in the log of %s", strings.Count(got, "\n"), k.id)
		}
	}
	t.Logf("8 exits recorded %v after their cause", time.Since(began))
	if st := n.stats("s1"); len(st.Containers) != 8 {
		t.Errorf("stats %+v", st)
	}
	if err := n.bed.Cont(); err != nil {
		t.Fatal(err)
	}
	for _, k := range all {
		if code := k.exit(20 * time.Second); code != 6 {
			t.Errorf("after containerd goes on: code %d", code)
		}
		k.delete()
	}
	n.end("s1")
}

// A container logs on while containerd is away and back and away again.
func TestLogOverRestarts(t *testing.T) {
	n := newNode(t)
	k := n.shell("s1", "i=0; while ! [ -e /go ]; do echo $i; i=$((i+1)); sleep 0.001; done; echo last", want{}).run(want{})
	for range 3 {
		if err := n.bed.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	pid := n.stats("s1").Pid
	touch(t, k.task.Pid(), "/go")
	eventually(t, 10*time.Second, "an exit record", func() bool {
		_, err := shimapi.ReadExit(n.runDir, k.id)
		return err == nil
	})
	next := 0
	for line := range strings.Lines(content(k.log(), "stdout")) {
		if line != "last\n" && line != itoa(next)+"\n" {
			t.Fatalf("line %q, want %d", line, next)
		}
		next++
	}
	n.connect()
	c, err := n.ctd.LoadContainer(t.Context(), k.id)
	if err != nil {
		t.Fatal(err)
	}
	task, err := c.Task(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := task.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := n.stats("s1").Pid; again != pid {
		t.Errorf("shim %d became %d", pid, again)
	}
	n.end("s1")
}

// The death of a shim is not silent: containerd has the rest killed, and there
// is an exit record that says so; the names of the dead shim are gone.
func TestShimKilled(t *testing.T) {
	n := newNode(t)
	done := n.shell("s1", "exit 3", want{}).run(want{})
	done.exit(10 * time.Second)
	k := n.shell("s1", "sleep 1000", want{}).run(want{})
	shim, initPid := n.stats("s1").Pid, int(k.task.Pid())
	if r, err := shimapi.ReadShim(n.runDir, "s1"); err != nil || r.Pid != shim || !r.Alive() || r.Namespace != "k8s.io" {
		t.Errorf("shim record %+v, %v", r, err)
	}
	if err := unix.Kill(shim, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "an exit record of the container", func() bool {
		r, err := shimapi.ReadExit(n.runDir, k.id)
		return err == nil && r.ShimLost && r.ExitCode == 137 && r.SandboxID == "s1"
	})
	if r, err := shimapi.ReadExit(n.runDir, done.id); err != nil || r.ShimLost || r.ExitCode != 3 {
		t.Errorf("the exit before: %+v, %v", r, err)
	}
	waitGone(t, initPid)
	eventually(t, 10*time.Second, "an end of the dead shim's names", func() bool {
		_, record := shimapi.ReadShim(n.runDir, "s1")
		_, socket := shimapi.Dial(n.runDir, "s1")
		return errors.Is(record, os.ErrNotExist) && errors.Is(socket, os.ErrNotExist)
	})
	// The sandbox can go on with a new shim.
	next := n.shell("s1", "echo next", want{}).run(want{})
	next.exit(10 * time.Second)
	if n.stats("s1").Pid == shim {
		t.Error("the dead shim answers")
	}
	next.delete()
	n.end("s1")
}

// A full run directory delays the record, not the container's end; the record
// comes when there is room.
func TestRunDirectoryFull(t *testing.T) {
	n := newNode(t)
	if err := os.MkdirAll(n.runDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", n.runDir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(n.runDir, unix.MNT_DETACH) })
	k := n.shell("s1", "while ! [ -e /go ]; do sleep 0.02; done; exit 8", want{}).run(want{})
	hog := n.runDir + "/hog"
	_ = os.WriteFile(hog, make([]byte, 128<<10), 0o600)
	touch(t, k.task.Pid(), "/go")
	if code := k.exit(10 * time.Second); code != 8 {
		t.Errorf("code %d", code)
	}
	if _, err := shimapi.ReadExit(n.runDir, k.id); err == nil {
		t.Error("the test did not fill the directory")
	}
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "the late record", func() bool {
		r, err := shimapi.ReadExit(n.runDir, k.id)
		return err == nil && r.ExitCode == 8
	})
	k.delete()
	n.end("s1")
}

// Somebody empties the run directory under a living shim: the next container
// brings its names back.
func TestRunDirectoryEmptied(t *testing.T) {
	n := newNode(t)
	k := n.shell("s1", "while ! [ -e /go ]; do sleep 0.02; done; exit 2", want{}).run(want{})
	pid := n.stats("s1").Pid
	if err := os.RemoveAll(n.runDir); err != nil {
		t.Fatal(err)
	}
	touch(t, k.task.Pid(), "/go")
	k.exit(10 * time.Second)
	if r, err := shimapi.ReadExit(n.runDir, k.id); err != nil || r.ExitCode != 2 {
		t.Errorf("record %+v, %v", r, err)
	}
	k2 := n.shell("s1", "exit 0", want{}).run(want{})
	k2.exit(10 * time.Second)
	if again := n.stats("s1").Pid; again != pid {
		t.Errorf("shim %d became %d", pid, again)
	}
	k.delete()
	if err := os.RemoveAll(n.runDir); err != nil {
		t.Fatal(err)
	}
	k2.delete() // without a next one the last one's delete does it
	n.end("s1")
}
