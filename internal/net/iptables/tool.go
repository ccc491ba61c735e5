package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"nodeagent/internal/net"
)

// tool is the programs of one flavour for one family.
type tool struct {
	f                      fam
	flavour                Flavour
	command, save, restore string // paths
	stays                  bool   // restore can be fed with one change after another
}

// Limits of one run. All services of a node in the legacy flavour take seconds.
const (
	commandTime = 60 * time.Second
	lockSeconds = "5" // how long another program may hold the xtables lock
	maxStderr   = 4096
)

// LockedError tells that another program held the xtables lock all the time.
type LockedError struct{ Err error }

func (e *LockedError) Error() string {
	return "another program has held the xtables lock (/run/xtables.lock) for " + lockSeconds + " s: " + e.Err.Error()
}

func (e *LockedError) Unwrap() error { return e.Err }

// IsLocked tells whether a later try can go well.
func IsLocked(err error) bool {
	var e *LockedError
	return errors.As(err, &e)
}

// locked is the exit code of the programs when a resource is busy.
const locked = 4

// run runs a program to its end; started, which may be nil, is told its process.
func run(ctx context.Context, in io.Reader, out io.Writer, start func(*exec.Cmd) error, path string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	var said head
	c := exec.CommandContext(ctx, path, args...)
	c.Stdin, c.Stdout, c.Stderr = in, out, &said
	c.Env = append(os.Environ(), "LC_ALL=C")
	c.WaitDelay = 2 * time.Second
	err := start(c)
	if err == nil {
		err = c.Wait()
	}
	if err == nil {
		return nil
	}
	return failed(ctx, c.Args, err, said.String())
}

// failed is the error of a program that ended with one, and said something.
func failed(ctx context.Context, args []string, err error, said string) error {
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(said))
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == locked && strings.Contains(said, "lock") {
		return &LockedError{err}
	}
	return err
}

// head keeps the beginning of what a program says.
type head struct{ bytes.Buffer }

func (h *head) Write(p []byte) (int, error) {
	h.Buffer.Write(p[:max(0, min(len(p), maxStderr-h.Len()))])
	return len(p), nil
}

// find looks for the programs of a flavour: under names of their own, or as what
// the plain names are.
func find(ctx context.Context, f fam, want Flavour) (tool, error) {
	for _, middle := range []string{"-" + string(want), ""} {
		base := f.command + middle
		command, err1 := exec.LookPath(base)
		save, err2 := exec.LookPath(base + "-save")
		restore, err3 := exec.LookPath(base + "-restore")
		if errors.Join(err1, err2, err3) != nil {
			continue
		}
		v, err := version(ctx, command)
		if err != nil {
			return tool{}, err
		}
		if v.flavour != want {
			continue
		}
		if v.old() {
			return tool{}, fmt.Errorf("%s is version %s: install 1.6.2 or newer, older ones cannot wait for the xtables lock", command, v.text)
		}
		return tool{f, want, command, save, restore, want == NFT && !v.before(1, 8, 6)}, nil
	}
	return tool{}, fmt.Errorf("find %s-save and %s-restore of the flavour %s: %w", f.command, f.command, want, exec.ErrNotFound)
}

type release struct {
	text    string
	numbers [3]int
	flavour Flavour
}

func version(ctx context.Context, path string) (release, error) {
	var out bytes.Buffer
	if err := run(ctx, nil, &out, (*exec.Cmd).Start, path, "--version"); err != nil {
		return release{}, err
	}
	return parseVersion(out.String())
}

// parseVersion reads "iptables v1.8.9 (nf_tables)"; before 1.8 there was only
// what is called legacy now.
func parseVersion(s string) (release, error) {
	words := strings.Fields(s)
	if len(words) < 2 || !strings.HasPrefix(words[1], "v") {
		return release{}, fmt.Errorf("read the version of iptables: it says %.100q", s)
	}
	r := release{text: words[1][1:], flavour: Legacy}
	for i, n := range strings.SplitN(r.text, ".", 3) {
		n, _, _ = strings.Cut(n, "-")
		var err error
		if r.numbers[i], err = strconv.Atoi(n); err != nil {
			return release{}, fmt.Errorf("read the version of iptables: it says %.100q", s)
		}
	}
	if len(words) > 2 && words[2] == "(nf_tables)" {
		r.flavour = NFT
	}
	return r, nil
}

// old tells of a version that cannot wait for the lock.
func (r release) old() bool { return r.before(1, 6, 2) }

func (r release) before(numbers ...int) bool { return slices.Compare(r.numbers[:], numbers) < 0 }

// read runs iptables-save for one table and hands out what it prints.
func (t tool) read(ctx context.Context, table string, use func(io.Reader) error) error {
	r, w := io.Pipe()
	used := make(chan error, 1)
	go func() {
		err := use(r)
		_, _ = io.Copy(io.Discard, r) // or the program would wait for ever
		used <- err
	}()
	var args []string
	if table != "" {
		args = []string{"-t", table}
	}
	err := run(ctx, nil, w, (*exec.Cmd).Start, t.save, args...)
	w.Close()
	if bad := <-used; err == nil && bad != nil {
		err = fmt.Errorf("%s %s: %w", t.save, strings.Join(args, " "), bad)
	}
	return err
}

// has tells whether the kernel has a table of this flavour at all: asking for a
// legacy one would make it.
func (t tool) has(table string) bool {
	if t.flavour == NFT {
		return true
	}
	b, err := os.ReadFile(t.f.tables)
	if err != nil {
		return false
	}
	for _, n := range strings.Fields(string(b)) {
		if table == "" || n == table {
			return true
		}
	}
	return false
}

// passing are errors of the kernel that are about the moment.
var passing = []string{"Cannot allocate memory", "Operation not permitted", "Permission denied", "No buffer space", "Interrupted system call", "Resource temporarily unavailable"}

// write runs iptables-restore, which takes all lines of a table or none. Where it
// complains of a line, the error is one for which net.IsRefused holds.
func (t tool) write(ctx context.Context, text []byte, start func(*exec.Cmd) error) error {
	err := run(ctx, bytes.NewReader(text), io.Discard, start, t.restore, "--noflush", "-w", lockSeconds)
	return t.judge(ctx, err, text, 0)
}

// judge tells whether a text was refused, or the moment was bad. before is how many
// lines the program was given before it.
func (t tool) judge(ctx context.Context, err error, text []byte, before int) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) || IsLocked(err) || ctx.Err() != nil {
		return err
	}
	line := lineOf(text, err.Error(), before)
	said := func(what string) bool { return strings.Contains(err.Error(), what) }
	if line == "" || slices.ContainsFunc(passing, said) {
		return err
	}
	return net.AsRefused(fmt.Errorf("%w%s", err, line))
}

// lineOf quotes the line that a program complains of by its number, which counts those
// before the text, too.
func lineOf(text []byte, said string, before int) string {
	_, rest, ok := strings.Cut(said, "line ")
	if !ok {
		_, rest, ok = strings.Cut(said, "line: ")
	}
	digits := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	n, err := strconv.Atoi(digits)
	n -= before
	if !ok || err != nil || n < 1 || n > bytes.Count(text, []byte("\n")) {
		return ""
	}
	lines := bytes.SplitN(text, []byte("\n"), n+1)
	return fmt.Sprintf(" (line %d is %.300q)", before+n, lines[n-1])
}
