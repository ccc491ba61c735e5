package node

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pty is a terminal and the end that a person would hold.
func pty(t *testing.T) (person, terminal *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { person.Close() })
	must(t, unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	must(t, err)
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	return person, terminal
}

// onPTY runs a verb with a terminal as all its streams; input is typed. It
// returns what the terminal was sent, and the exit code.
func (c *cli) onPTY(t *testing.T, input string, args ...string) (string, int) {
	t.Helper()
	person, terminal := pty(t)
	must(t, unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 111}))
	cmd := c.command(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	must(t, c.b.Start(cmd))
	terminal.Close()
	late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	if input != "" {
		c.waitProcess(t, strings.Join(args[slices.Index(args, "--")+2:], "\x00"), true) // the terminal is raw by then
		_, err := io.WriteString(person, input)
		must(t, err)
	}
	text, _ := io.ReadAll(person) // ends with EIO when the last one closed the terminal
	_ = cmd.Wait()
	return string(text), cmd.ProcessState.ExitCode()
}

// onATerminal proves that what pods wrote cannot act on a terminal, that -t
// gives the command a real one, and that interrupting leaves nothing.
func (c *cli) onATerminal(t *testing.T) {
	const shown = `\x1b[31mred\rover\u009bx\u202eend`
	if got, _ := c.onPTY(t, "", "logs", "evil"); !strings.Contains(got, shown) || strings.ContainsAny(got, "\x1b\u009b\u202e") {
		t.Errorf("the terminal gets %q, want %q in it", got, shown)
	}
	if got, _ := c.onPTY(t, "", "logs", "evil", "--raw"); !strings.Contains(got, "\x1b[31mred") {
		t.Errorf("--raw shows %q", got)
	}
	if got, _ := c.onPTY(t, "", "exec", "web", "--", "/podtool", "stderr", hostile); !strings.Contains(got, shown) {
		t.Errorf("exec without a terminal shows %q", got)
	}
	if got, code := c.onPTY(t, "", "exec", "-t", "web", "--", "/podtool", "seq", "stderr", "\x1b[1mbold", ";", "exit", "9"); !strings.Contains(got, "\x1b[1mbold") || code != 9 {
		t.Errorf("exec with a terminal shows %q and ends with %d", got, code)
	}
	if got, code := c.onPTY(t, "typed\n\x04", "exec", "-it", "web", "--", "/podtool", "cat", "/dev/stdin"); strings.Count(got, "typed") != 2 || code != 0 {
		t.Errorf("what was typed comes back as %q, want it as echo and as output; code %d", got, code)
	}
	// The command ends with 0 on SIGINT, or by it if it came before the handler
	// was set. Our own process has no terminal that could interrupt it.
	if _, code := c.onPTY(t, "\x03", "exec", "-it", "web", "--", "/podtool", "sleep", "1111111s"); code != 0 && code != 130 {
		t.Errorf("Ctrl-C on a terminal is the command's, which ends by it; exec ended with %d", code)
	}
	t.Run("colour", func(t *testing.T) {
		if got, _ := c.onPTY(t, "", "pods"); !strings.Contains(got, "\x1b[32mRunning\x1b[0m") {
			t.Errorf("no colour on a terminal: %q", got)
		}
		c.env = []string{"NO_COLOR=1"}
		defer func() { c.env = nil }()
		if got, _ := c.onPTY(t, "", "pods"); strings.Contains(got, "\x1b") {
			t.Errorf("colour in spite of NO_COLOR: %q", got)
		}
	})
	t.Run("size", c.size)
	t.Run("interrupt", c.interrupt)
}

// size proves that the command's terminal has the size of ours, also after it
// changed.
func (c *cli) size(t *testing.T) {
	person, terminal := pty(t)
	want := &unix.Winsize{Row: 33, Col: 111}
	must(t, unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, want))
	cmd := c.command("exec", "-it", "web", "--", "/podtool", "sleep", "7654321s")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	must(t, c.b.Start(cmd))
	defer func() { _ = cmd.Process.Kill() }() // after a failure
	pid := c.waitProcess(t, "7654321s", true)
	for _, size := range []*unix.Winsize{want, {Row: 44, Col: 99}} {
		must(t, unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, size))
		must(t, cmd.Process.Signal(unix.SIGWINCH)) // it is not this terminal's session
		eventually(t, fmt.Sprintf("a terminal of %dx%d", size.Col, size.Row), func() bool {
			f, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/1", pid), os.O_RDWR|unix.O_NOCTTY, 0)
			if err != nil {
				return false
			}
			defer f.Close()
			got, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
			return err == nil && got.Row == size.Row && got.Col == size.Col
		})
	}
	_, err := io.WriteString(person, "\x03")
	must(t, err)
	c.waitProcess(t, "7654321s", false)
	_ = cmd.Wait()
}

// interrupt proves that an exec that is interrupted, hung up or no longer read
// ends its command and leaves nothing.
func (c *cli) interrupt(t *testing.T) {
	for _, signal := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		cmd := c.command("exec", "web", "--", "/podtool", "deaf", "1234567")
		must(t, c.b.Start(cmd))
		c.waitProcess(t, "deaf\x001234567", true)
		must(t, cmd.Process.Signal(signal))
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 130 {
			t.Errorf("exec ended with %d after %v, want 130", code, signal)
		}
		c.waitProcess(t, "deaf\x001234567", false)
	}
	r, w, err := os.Pipe()
	must(t, err)
	cmd := c.command("exec", "web", "--", "/podtool", "flood", "59s")
	cmd.Stdout = w
	must(t, c.b.Start(cmd))
	w.Close()
	_, err = io.ReadFull(r, make([]byte, 1000))
	must(t, err)
	r.Close()
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 141 {
		t.Errorf("exec whose reader went away ended with %d, want 141", code)
	}
	c.waitProcess(t, "flood\x0059s", false)
	if left, _ := os.ReadDir(c.a.RunDir() + "/exec"); len(left) > 0 {
		t.Errorf("exec leaves %v", left)
	}
}

// waitProcess waits until a podtool with these words in its command line is
// there, or is not, in some container.
func (c *cli) waitProcess(t *testing.T, words string, there bool) (pid int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%q there: %t", words, there), func() bool {
		pid = 0
		for n := range c.b.Processes() { // another bed may run the same
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n))
			if strings.HasPrefix(string(line), "/podtool\x00") && strings.Contains(string(line), words) {
				pid = n
			}
		}
		return (pid != 0) == there
	})
	return pid
}

// eventually waits for what nothing can tell.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick, late := time.NewTicker(10*time.Millisecond), time.After(20*time.Second)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("never came: %s", what)
		}
	}
}
