//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
