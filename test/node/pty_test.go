package node

import (
	"fmt"
	"io"
	"os"
	"os/exec"
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
	_ = exec.ErrDot
}
