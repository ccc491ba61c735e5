package cri_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"nodeagent/internal/cri"
	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// runSleeper runs a container with a shell in its image, in pod p1.
func (n *node) runSleeper() (sandbox, container string) {
	n.t.Helper()
	config := n.sandboxConfig("p1")
	sandbox = n.runSandbox(config)
	cc := containerConfig("main", 0)
	cc.Image.Image = image.Shell
	cc.Command = []string{"/podtool", "sleep", "forever"}
	return sandbox, n.runContainer(sandbox, cc, config)
}

func TestExec(t *testing.T) {
	n := newNode(t, bed.Options{})
	sb, id := n.runSleeper()
	defer n.removePod("p1", 0)

	t.Run("output and code", func(t *testing.T) {
		r, err := n.ExecSync(t.Context(), id, []string{"/bin/sh", "-c", "echo out; echo err >&2; exit 3"})
		if err != nil || r.ExitCode != 3 || string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" {
			t.Errorf("%q %q %d %v", r.Stdout, r.Stderr, r.ExitCode, err)
		}
	})
	t.Run("bounded output", func(t *testing.T) {
		r, err := n.ExecSync(t.Context(), id, []string{"/bin/sh", "-c", "dd if=/dev/zero bs=65536 count=64 2>/dev/null"})
		if err != nil || len(r.Stdout) != 64<<10 {
			t.Errorf("%d bytes, %v", len(r.Stdout), err)
		}
	})
	t.Run("stdin ends", func(t *testing.T) {
		var out bytes.Buffer
		code, err := n.Exec(t.Context(), id, cri.ExecOptions{Args: []string{"/bin/cat"}, Stdin: strings.NewReader("hello"), Stdout: &out})
		if err != nil || code != 0 || out.String() != "hello" {
			t.Errorf("%q %d %v", out.String(), code, err)
		}
	})
	t.Run("terminal", func(t *testing.T) {
		var out bytes.Buffer
		resize := make(chan cri.TerminalSize, 1)
		resize <- cri.TerminalSize{Width: 77, Height: 33}
		ctx, cancel := context.WithTimeout(t.Context(), need.Slow(30*time.Second))
		defer cancel()
		code, err := n.Exec(ctx, id, cri.ExecOptions{Args: []string{"/bin/sh", "-c", "until stty size | grep -qv '^0 0'; do sleep 0.05; done; tty; stty size"}, TTY: true, Stdout: &out, Resize: resize})
		if err != nil || code != 0 || !strings.Contains(out.String(), "33 77") || !strings.Contains(out.String(), "/dev/") {
			t.Errorf("%q %d %v", out.String(), code, err)
		}
	})
	t.Run("a child holds the pipe", func(t *testing.T) {
		began := time.Now()
		r, err := n.ExecSync(t.Context(), id, []string{"/bin/sh", "-c", "sleep 1000 & echo done"})
		if err != nil || string(r.Stdout) != "done\n" || time.Since(began) > 8*time.Second {
			t.Errorf("%q %v after %s", r.Stdout, err, time.Since(began))
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if _, err := n.ExecSync(ctx, id, []string{"/bin/sleep", "4242"}); err == nil {
			t.Error("no error")
		}
		r, err := n.ExecSync(t.Context(), id, []string{"/bin/sh", "-c", "ps | grep -c '[4]242'"})
		if err != nil || strings.TrimSpace(string(r.Stdout)) != "0" {
			t.Errorf("still there: %q %v", r.Stdout, err)
		}
	})
	t.Run("not there", func(t *testing.T) {
		if _, err := n.ExecSync(t.Context(), "nosuch", []string{"x"}); !cri.IsNotFound(err) {
			t.Error(err)
		}
		if _, err := n.ExecSync(t.Context(), sb, []string{"x"}); !cri.IsNotFound(err) {
			t.Error(err)
		}
		if _, err := n.ExecSync(t.Context(), id, []string{"/nosuch"}); err == nil {
			t.Error("no error for a missing program")
		}
	})
}
