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
		args   string        // after "runc --root <root>"
		writes string        // by the init
		after  time.Duration // the init comes
		here   bool
	}{
		"runc's container":            {"state.json", "--log l start c1", "0", 0, true},
		"init comes later":            {"state.json", "--log l start c1", "0", 50 * time.Millisecond, true},
		"init closes without a byte":  {"state.json", "--log l start c1", "", 0, false},
		"nobody comes":                {"state.json", "--log l start c1", "0", time.Hour, false},
		"crun's container":            {"status", "--log l start c1", "0", time.Hour, false},
		"another container":           {"state.json", "--log l start c2", "0", time.Hour, false},
		"another command":             {"state.json", "--log l delete c1", "0", time.Hour, false},
		"a container that is no verb": {"state.json", "--log l kill start 15", "0", time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			dir := filepath.Join(root, "c1")
			fifo := filepath.Join(dir, "exec.fifo")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, c.state), nil, 0o600); err != nil {
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
			done := startHere(cmd)
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
