// Package journal owns what is asked of the node's journal: it runs journalctl, whose
// words and options an operator knows, and is bounded in time, in bytes and in how many
// of it there are at once.
//
// It never writes, never follows, and never decides who may read. What is asked for comes
// from clients: each part of it is one argument that begins with the name of its option,
// no shell sees it, and names of units have the characters of such names only.
//
// Any goroutine may call it.
package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"time"
)

const (
	// atOnce bounds the programs that run.
	atOnce = 4
	// limit is how long one runs, as with kubelet.
	limit = 30 * time.Second
	// linger is how long what it has written is waited for when it was killed.
	linger = time.Second
	// maxOutput is what one may say: a whole journal can have gigabytes.
	maxOutput = 64 << 20
	// maxName is more than the name of a unit can have.
	maxName = 512
)

// Query is what somebody wants to read.
type Query struct {
	Units        []string
	Since, Until time.Time // zero: no bound
	Lines        *int      // the last so many
	Pattern      string    // a regular expression of PCRE2
	Boot         *int      // 0 is this one, -1 the one before
}

// ErrBusy tells that too many read at a time.
var ErrBusy = errors.New("too many read the journal at a time: try again")

// ErrTooMuch tells that there was more than may be said at once.
var ErrTooMuch = fmt.Errorf("there are more than %d MiB: ask for less of it", maxOutput>>20)

// Journal is the journal of this node.
type Journal struct {
	program string
	places  chan struct{}
	limit   time.Duration
}

// New returns the journal that journalctl of PATH reads.
func New() *Journal {
	return &Journal{program: "journalctl", places: make(chan struct{}, atOnce), limit: limit}
}

// Has returns those of the names that are units of which there is something; "kubelet" is
// kubelet.service. Where nobody keeps a journal there is none.
func (j *Journal) Has(ctx context.Context, names []string) ([]string, error) {
	seen := units{wanted: map[string]bool{}}
	for _, name := range names {
		seen.wanted[name], seen.wanted[name+".service"] = false, false
	}
	switch err := j.run(ctx, &bounded{w: &seen, left: maxOutput}, "--field=_SYSTEMD_UNIT"); {
	case errors.Is(err, ErrBusy), ctx.Err() != nil:
		return nil, err
	case err != nil:
		return nil, nil
	}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return !seen.wanted[name] && !seen.wanted[name+".service"]
	}), nil
}

// units looks for names among lines, of which a node where pods come and go has many.
type units struct {
	wanted map[string]bool // whether it was there
	line   []byte
}

// Write implements io.Writer.
func (u *units) Write(p []byte) (int, error) {
	for _, c := range p {
		switch {
		case c == '\n':
			if _, ok := u.wanted[string(u.line)]; ok {
				u.wanted[string(u.line)] = true
			}
			u.line = u.line[:0]
		case len(u.line) < maxName:
			u.line = append(u.line, c)
		}
	}
	return len(p), nil
}

// Read writes what there is, in journalctl's own words also where that is nothing.
func (j *Journal) Read(ctx context.Context, w io.Writer, q Query) error {
	out := &bounded{w: w, left: maxOutput}
	err := j.run(ctx, out, arguments(q)...)
	var ended *exec.ExitError
	switch {
	case out.failed != nil:
		return out.failed
	case errors.As(err, &ended) && ended.Exited():
		return nil // it has said why: nothing matches, or there is no such boot
	}
	return err
}

// arguments are those of journalctl. None is an operand.
func arguments(q Query) []string {
	args := []string{"--utc", "--no-pager", "--output=short-precise"}
	for _, one := range []struct {
		option string
		at     time.Time
	}{{"--since=", q.Since}, {"--until=", q.Until}} {
		if !one.at.IsZero() {
			// Words would be taken for the node's own time.
			args = append(args, fmt.Sprintf("%s@%d.%06d", one.option, one.at.Unix(), one.at.Nanosecond()/1000))
		}
	}
	if q.Lines != nil {
		args = append(args, "--lines="+strconv.Itoa(*q.Lines))
	}
	for _, unit := range q.Units {
		args = append(args, "--unit="+unit)
	}
	if q.Pattern != "" {
		args = append(args, "--grep="+q.Pattern)
	}
	if q.Boot != nil {
		args = append(args, "--boot="+strconv.Itoa(*q.Boot))
	}
	return args
}

// run runs journalctl until it ends, its time is over or nobody takes what it says.
func (j *Journal) run(ctx context.Context, out *bounded, args ...string) error {
	select {
	case j.places <- struct{}{}:
		defer func() { <-j.places }()
	default:
		return ErrBusy
	}
	ctx, cancel := context.WithTimeoutCause(ctx, j.limit, fmt.Errorf("journalctl was ended after %s", j.limit))
	defer cancel()
	out.stop = cancel
	cmd := exec.CommandContext(ctx, j.program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = linger
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("read the journal: %w", err)
	}
	return nil
}

// bounded passes on so many bytes, and ends who writes when they are used up or nobody
// takes them.
type bounded struct {
	w      io.Writer
	left   int
	stop   func()
	failed error
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.failed != nil {
		return 0, b.failed
	}
	part := p[:min(len(p), b.left)]
	n, err := b.w.Write(part)
	b.left -= n
	if err == nil && n < len(p) {
		err = ErrTooMuch
	}
	if err != nil {
		b.failed = err
		b.stop()
	}
	return n, err
}
