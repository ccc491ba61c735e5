//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runcC "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"

	"nodeagent/internal/shimapi"
)

// TestStartHere: the init's byte is taken and the FIFO goes away; wherever that
// is not sure to be runc's way, nothing is touched and runc is asked.
func TestStartHere(t *testing.T) {
	for name, c := range map[string]struct {
		state  string        // runc's state.json, or another runtime's file
		pid    int           // of the init, in it
		args   string        // after "runc --root <root>"
		writes string        // by the init
		after  time.Duration // the init comes
		wait   time.Duration
		here   bool
	}{
		"runc's container":            {"state.json", os.Getpid(), "--log l start c1", "0", 0, fifoWait, true},
		"init comes later":            {"state.json", os.Getpid(), "--log l start c1", "0", 50 * time.Millisecond, fifoWait, true},
		"init comes after a second":   {"state.json", os.Getpid(), "--log l start c1", "0", time.Second, fifoWait, true},
		"init closes without a byte":  {"state.json", os.Getpid(), "--log l start c1", "", 50 * time.Millisecond, fifoWait, false},
		"init is dead":                {"state.json", dead(t), "--log l start c1", "0", time.Hour, fifoWait, false},
		"nobody comes":                {"state.json", os.Getpid(), "--log l start c1", "0", time.Hour, 20 * time.Millisecond, false},
		"crun's container":            {"status", 0, "--log l start c1", "0", time.Hour, fifoWait, false},
		"another container":           {"state.json", os.Getpid(), "--log l start c2", "0", time.Hour, fifoWait, false},
		"another command":             {"state.json", os.Getpid(), "--log l delete c1", "0", time.Hour, fifoWait, false},
		"a container that is no verb": {"state.json", os.Getpid(), "--log l kill start 15", "0", time.Hour, fifoWait, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			dir := filepath.Join(root, "c1")
			fifo := filepath.Join(dir, "exec.fifo")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, c.state), fmt.Appendf(nil, `{"init_process_pid":%d}`, c.pid), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mkfifo(fifo, 0o622); err != nil {
				t.Fatal(err)
			}
			init := time.AfterFunc(c.after, func() {
				f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
				if err == nil {
					_, _ = f.WriteString(c.writes)
					_ = f.Close()
				}
			})
			defer init.Stop()
			cmd := &exec.Cmd{Args: append([]string{"runc", "--root", root}, strings.Fields(c.args)...)}
			done := startHere(cmd, c.wait)
			if (done != nil) != c.here {
				t.Fatalf("started here: %t, want %t", done != nil, c.here)
			}
			if _, err := os.Stat(fifo); (err != nil) != c.here {
				t.Errorf("look for the FIFO: %v", err)
			}
			if !c.here {
				return
			}
			m := &stdioMonitor{}
			if status, err := m.Wait(cmd, done); status != 0 || err != nil {
				t.Errorf("the start ended with %d, %v", status, err)
			}
		})
	}
}

// dead is the number of a process that has ended.
func dead(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("/bin/true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

// TestStartedAnyway: a start that was broken off after the init had gone on is
// one; before that, and for somebody else's number, it is none.
func TestStartedAnyway(t *testing.T) {
	born, err := shimapi.ProcessStartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	waiting := initLike(t)
	bornWaiting, err := shimapi.ProcessStartTime(waiting)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		state, args string
		started     bool
	}{
		"its program runs":    {fmt.Sprintf(`{"init_process_pid":%d,"init_process_start":%d}`, os.Getpid(), born), "start c1", true},
		"it waits":            {fmt.Sprintf(`{"init_process_pid":%d,"init_process_start":%d}`, waiting, bornWaiting), "start c1", false},
		"another's number":    {fmt.Sprintf(`{"init_process_pid":%d,"init_process_start":%d}`, os.Getpid(), born+1), "start c1", false},
		"it is gone":          {`{"init_process_pid":4194305,"init_process_start":1}`, "start c1", false},
		"a state cut short":   {`{"init_process_pid":`, "start c1", false},
		"it was another verb": {fmt.Sprintf(`{"init_process_pid":%d,"init_process_start":%d}`, os.Getpid(), born), "kill c1 15", false},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "c1")
			if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "state.json"), []byte(c.state), 0o600),
				unix.Mkfifo(filepath.Join(dir, "exec.fifo"), 0o622)); err != nil {
				t.Fatal(err)
			}
			m := &stdioMonitor{ProcessMonitor: killed{}}
			status, err := m.Wait(&exec.Cmd{Process: &os.Process{}, Args: append([]string{"runc", "--root", root}, strings.Fields("--log l "+c.args)...)}, nil)
			if (status == 0) != c.started || err != nil {
				t.Errorf("the broken start ended with %d, %v", status, err)
			}
			if _, err := os.Stat(filepath.Join(dir, "exec.fifo")); (err != nil) != c.started {
				t.Errorf("look for the FIFO: %v", err)
			}
		})
	}
}

// killed is a monitor whose commands all ended by SIGKILL.
type killed struct{ runcC.ProcessMonitor }

func (killed) Wait(*exec.Cmd, chan runcC.Exit) (int, error) { return 137, nil }

// initLike starts a process that bears the name of runc's init.
func initLike(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", `printf 'runc:[2:INIT]' >/proc/$$/comm; echo; read x`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}
