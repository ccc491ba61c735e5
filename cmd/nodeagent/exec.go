package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"nodeagent/internal/cri"
	"nodeagent/internal/diag"
)

// exitInterrupted is how a shell reports a command that SIGINT ended.
const exitInterrupted = 130

// execFlags are the flags of "exec".
type execFlags struct {
	container  string
	stdin, tty bool
}

func execCommand() *cobra.Command {
	var f execFlags
	cmd := &cobra.Command{
		Use:   "exec [-it] POD [-c CONTAINER] -- COMMAND [ARG...]",
		Short: "Run a command in a container",
		Long: "Run a command in a running container, as the container's user and with its limits, and end with its exit code.\n" +
			"The daemon is not needed. Ctrl-C ends the command; with -t it is the command's to handle.\n" +
			"Without -t, control characters in its output are made visible on a terminal; with -t the command has the terminal.",
		Example: "  nodeagent exec web -- cat /etc/resolv.conf\n  nodeagent exec -it kube-system/web -c app -- sh\n" +
			"  tar c dir | nodeagent exec -i web -- tar x -C /tmp",
	}
	cmd.Flags().StringVarP(&f.container, "container", "c", "", "container of the pod; needed if it has several")
	cmd.Flags().BoolVarP(&f.stdin, "stdin", "i", false, "pass stdin on")
	cmd.Flags().BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal")
	cmd.Flags().SetInterspersed(true)
	completePods(cmd)
	return verb(cmd, execArgs, func(cmd *cobra.Command, n *node, args []string) error {
		return runExec(cmd, n, args[0], args[1:], f)
	})
}

// execArgs wants a pod, and a command after the dashes, so that the command's
// flags are never taken for ours.
func execArgs(cmd *cobra.Command, args []string) error {
	switch dash := cmd.ArgsLenAtDash(); {
	case len(args) == 0 || dash == 0:
		return errors.New("name a pod")
	case dash < 0 && len(args) > 1, dash > 1:
		return errors.New("put -- before the command: exec POD -- COMMAND")
	case len(args) < 2:
		return errors.New("name a command: exec POD -- COMMAND")
	}
	return nil
}

func runExec(cmd *cobra.Command, n *node, name string, argv []string, f execFlags) error {
	view, err := n.look(cmd)
	if err != nil {
		return err
	}
	p, c, err := findContainer(view, name, f.container)
	if err != nil {
		return err
	}
	if !c.Running() {
		return fmt.Errorf("exec in %s/%s: the container does not run: %s", p.FullName(), c.Name, containerState(c))
	}
	ctx, cancel := context.WithCancelCause(cmd.Context())
	defer cancel(nil)
	hangup, stop := signal.NotifyContext(ctx, syscall.SIGHUP, syscall.SIGQUIT)
	defer stop()
	o, restore, err := execOptions(hangup, cmd, f, argv, cancel)
	if err != nil {
		return err
	}
	defer restore()
	code, err := n.runtime.Exec(hangup, c.ID, o)
	restore()
	switch cause := context.Cause(ctx); {
	case err != nil && errors.As(cause, new(outputError)):
		return exitCode(128 + int(syscall.SIGPIPE))
	case err != nil && hangup.Err() != nil:
		return exitCode(exitInterrupted)
	case cri.IsNotFound(err):
		return &diag.NotFoundError{What: "running container", Name: c.ID, Hint: "it has ended meanwhile"}
	case err != nil:
		return n.reach(err)
	case code != 0:
		return exitCode(code)
	}
	return nil
}

// execOptions connects the command to this process's streams. restore gives the
// terminal back as it was; it may be called more than once.
func execOptions(ctx context.Context, cmd *cobra.Command, f execFlags, argv []string, cancel context.CancelCauseFunc) (o cri.ExecOptions, restore func(), err error) {
	o = cri.ExecOptions{Args: argv}
	in := int(os.Stdin.Fd())
	if f.tty && !term.IsTerminal(in) {
		say(cmd, "stdin is no terminal, so the command gets none")
		f.tty = false
	}
	if f.stdin {
		o.Stdin = cmd.InOrStdin()
	}
	// A reader that went away, such as head, ends the command. Without this the
	// kernel would end this process first, and leave the command behind.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	stdout, _ := shield(cmd.OutOrStdout(), f.tty)
	stderr, _ := shield(cmd.ErrOrStderr(), f.tty)
	o.Stdout, o.Stderr = watched{stdout, cancel}, watched{stderr, cancel}
	if !f.tty {
		return o, func() {}, nil
	}
	o.TTY = true
	o.Resize = sizes(ctx, in)
	if !f.stdin {
		return o, func() {}, nil
	}
	before, err := term.MakeRaw(in)
	if err != nil {
		return o, func() {}, fmt.Errorf("prepare the terminal: %w", err)
	}
	return o, func() { _ = term.Restore(in, before) }, nil
}

// outputError is the failure to write the command's output.
type outputError struct{ error }

// watched ends the command when its output cannot be written any more.
type watched struct {
	w      io.Writer
	cancel context.CancelCauseFunc
}

// Write implements io.Writer.
func (w watched) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if err != nil {
		w.cancel(outputError{err})
	}
	return n, err
}

// sizes tells the terminal's size, now and whenever it changes, until ctx ends.
func sizes(ctx context.Context, fd int) <-chan cri.TerminalSize {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	changed <- unix.SIGWINCH // the size now
	out := make(chan cri.TerminalSize)
	go func() { // ends with ctx
		defer signal.Stop(changed)
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
			width, height, err := term.GetSize(fd)
			if err != nil {
				continue
			}
			select {
			case <-ctx.Done():
				return
			case out <- cri.TerminalSize{Width: uint16(width), Height: uint16(height)}:
			}
		}
	}()
	return out
}
