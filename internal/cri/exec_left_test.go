package cri_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	containerdns "github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
)

// TestLeftExecWithoutReader: a daemon that was killed while the shim waited for
// it to open an exec's output leaves a start that hangs and a process that has no
// pid yet; the next daemon ends both at once.
func TestLeftExecWithoutReader(t *testing.T) {
	n := newNode(t, bed.Options{})
	_, id := n.runSleeper()
	defer n.removePod("p1", 0)
	n.stop()

	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	all := filepath.Join(n.cfg.RunDir, "exec", strconv.Itoa(dead.Process.Pid))
	dir := filepath.Join(all, id, "1")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	const name = "exec-of-the-dead"
	stdout, stderr := filepath.Join(dir, name+"-stdout"), filepath.Join(dir, name+"-stderr")
	for _, fifo := range []string{stdout, stderr} {
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(containerdns.WithNamespace(t.Context(), bed.Namespace), need.Slow(30*time.Second))
	defer cancel()
	client := n.bed.Client(t).TaskService()
	record, err := n.bed.Client(t).LoadContainer(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := record.Spec(ctx)
	if err != nil {
		t.Fatal(err)
	}
	process := specs.Process{Args: []string{"/bin/sleep", "4321"}, Cwd: "/", Env: whole.Process.Env}
	encoded, err := typeurl.MarshalAnyToProto(&process)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Exec(ctx, &tasks.ExecProcessRequest{ContainerID: id, ExecID: name, Spec: encoded, Stdout: stdout, Stderr: stderr}); err != nil {
		t.Fatal(err)
	}
	started := make(chan error, 1)
	go func() {
		_, err := client.Start(ctx, &tasks.StartRequest{ContainerID: id, ExecID: name})
		started <- err
	}()
	runs := func() (found int) { // the shim itself does not answer yet
		for pid := range n.bed.Processes() {
			if raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && string(raw) == "/bin/sleep\x004321\x00" {
				found++
			}
		}
		return found
	}
	await := func(what string, ok func() bool) {
		for !ok() {
			if bed.Pause(ctx, 10*time.Millisecond); ctx.Err() != nil {
				t.Fatalf("never came: %s", what)
			}
		}
	}
	await("the command", func() bool { return runs() == 1 })
	n.start()
	if err := <-started; err != nil {
		t.Errorf("nobody let the start go on: %v", err)
	}
	await("the command's end", func() bool { return runs() == 0 })
	await("the end of the dead daemon's FIFOs", func() bool {
		_, err := os.Stat(all)
		return os.IsNotExist(err)
	})
}
