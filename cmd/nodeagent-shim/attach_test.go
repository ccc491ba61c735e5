package main_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"nodeagent/internal/shimapi"
	"nodeagent/internal/test/need"
)

func itoa(n int) string { return fmt.Sprint(n) }

func TestAttach(t *testing.T) {
	n := newNode(t)
	for name, f := range map[string]func(*node){
		"output and stdin": attachBoth,
		"stdin once":       attachOnce,
		"slow client":      attachSlow,
		"terminal":         attachTerminal,
		"refused":          attachRefused,
		"close stdin":      closeStdin,
	} {
		t.Run(name, func(t *testing.T) {
			f(&node{t: t, bed: n.bed, ctd: n.ctd, img: n.img, runDir: n.runDir, logDir: n.logDir})
		})
	}
}

func (k *ctr) attach(o shimapi.AttachOptions) *shimapi.Stream {
	k.n.t.Helper()
	o.Container = k.id
	ctx, cancel := context.WithTimeout(k.n.t.Context(), need.Slow(30*time.Second))
	k.n.t.Cleanup(cancel)
	s, err := k.n.dial(k.sandbox).Attach(ctx, o)
	if err != nil {
		k.n.t.Fatal(err)
	}
	k.n.t.Cleanup(func() { s.Close() })
	return s
}

// expect reads until both outputs hold what is wanted.
func expect(t *testing.T, s *shimapi.Stream, out, errs string) {
	t.Helper()
	var a, b strings.Builder
	for !strings.Contains(a.String(), out) || !strings.Contains(b.String(), errs) {
		data, stderr, err := s.Read()
		if err != nil {
			t.Fatalf("%v after %q and %q, want %q and %q", err, a.String(), b.String(), out, errs)
		}
		if stderr {
			b.Write(data)
		} else {
			a.Write(data)
		}
	}
}

func attachBoth(n *node) {
	w := want{stdin: shimapi.StdinURI}
	k := n.shell("att", "while read l; do echo got $l; echo err $l >&2; [ $l = end ] && exit 0; done; exit 1", w).run(w)
	for i := range 3 { // one client after the other: stdin stays open
		s := k.attach(shimapi.AttachOptions{Stdin: true, Stdout: true, Stderr: true})
		if _, err := fmt.Fprintf(s, "%d\n", i); err != nil {
			n.t.Fatal(err)
		}
		expect(n.t, s, "got "+itoa(i)+"\n", "err "+itoa(i)+"\n")
		s.Close()
	}
	a := k.attach(shimapi.AttachOptions{Stdin: true, Stdout: true})
	b := k.attach(shimapi.AttachOptions{Stderr: true})
	if _, err := io.WriteString(a, "end\n"); err != nil {
		n.t.Fatal(err)
	}
	expect(n.t, a, "got end\n", "")
	expect(n.t, b, "", "err end\n")
	for _, s := range []*shimapi.Stream{a, b} {
		if _, _, err := s.Read(); !errors.Is(err, io.EOF) {
			n.t.Errorf("after the end: %v", err)
		}
	}
	if code := k.exit(10 * time.Second); code != 0 {
		n.t.Errorf("code %d", code)
	}
	if got := content(k.log(), "stdout"); got != "got 0\ngot 1\ngot 2\ngot end\n" {
		n.t.Errorf("log %q", got)
	}
	k.delete()
	n.end("att")
}

func attachOnce(n *node) {
	w := want{stdin: shimapi.StdinOnceURI}
	k := n.shell("once", "cat; echo over", w).run(w)
	s := k.attach(shimapi.AttachOptions{Stdin: true, Stdout: true})
	if _, err := io.WriteString(s, "hello\n"); err != nil {
		n.t.Fatal(err)
	}
	expect(n.t, s, "hello\n", "")
	s.Close() // the first client leaves: the container sees the end of stdin
	k.exit(10 * time.Second)
	if got := content(k.log(), "stdout"); got != "hello\nover\n" {
		n.t.Errorf("log %q", got)
	}
	k.delete()
	n.end("once")
}

// A client that does not read is cut off; the container does not wait for it.
func attachSlow(n *node) {
	w := want{maxSize: 4 << 20, maxFiles: 2}
	// Over before the client has stalled for so long that it is cut off in the
	// middle of a frame.
	flood := 32_000_000 * uint64(time.Second) / uint64(need.Slow(time.Second))
	k := n.shell("slow", fmt.Sprintf("while ! [ -e /go ]; do sleep 0.02; done; /podtool flood 60s %d", flood), w).run(w)
	s := k.attach(shimapi.AttachOptions{Stdout: true})
	before := anonymous(n.t, n.stats("slow").Pid)
	touch(n.t, k.task.Pid(), "/go")
	k.exit(30 * time.Second)
	if grown := anonymous(n.t, n.stats("slow").Pid) - before; grown > 8<<20 {
		n.t.Errorf("memory grew by %d", grown)
	}
	var err error
	got := 0
	for err == nil {
		var data []byte
		data, _, err = s.Read()
		got += len(data)
	}
	if !errors.Is(err, shimapi.ErrDropped) || got == 0 {
		n.t.Errorf("after %d bytes: %v, want to be cut off", got, err)
	}
	if st := n.stats("slow").Containers[0]; st.Bytes < flood || st.DroppedLines != 0 {
		n.t.Errorf("stats %+v", st)
	}
	k.delete()
	n.end("slow")
}

func attachTerminal(n *node) {
	w := want{tty: true, stdin: shimapi.StdinURI}
	k := n.shell("tty", "echo begin; read x; stty size 2>/dev/null; echo size-done; read y; echo bye-$y; exit 3", w).run(w)
	s := k.attach(shimapi.AttachOptions{Stdin: true, Stdout: true, TTY: true})
	if err := n.dial("tty").Resize(n.t.Context(), k.id, 123, 45); err != nil {
		n.t.Error(err)
	}
	if _, err := io.WriteString(s, "x\n"); err != nil {
		n.t.Fatal(err)
	}
	expect(n.t, s, "size-done\r\n", "")
	if _, err := io.WriteString(s, "now\n"); err != nil {
		n.t.Fatal(err)
	}
	expect(n.t, s, "bye-now\r\n", "")
	if code := k.exit(10 * time.Second); code != 3 {
		n.t.Errorf("code %d", code)
	}
	if r, err := shimapi.ReadExit(n.runDir, k.id); err != nil || r.ExitCode != 3 {
		n.t.Errorf("record %+v, %v", r, err)
	}
	if got := content(k.log(), "stdout"); !strings.Contains(got, "begin\r\n") || !strings.HasSuffix(got, "bye-now\r\n") {
		n.t.Errorf("log %q", got)
	}
	if _, err := os.Stat("/proc/" + itoa(n.stats("tty").Pid)); err != nil {
		n.t.Error(err)
	}
	k.delete()
	n.end("tty")
}

func attachRefused(n *node) {
	k := n.shell("ref", "sleep 1000", want{}).run(want{})
	for what, o := range map[string]shimapi.AttachOptions{
		"no such container": {Container: "nobody"},
		"no stdin":          {Container: k.id, Stdin: true},
		"no terminal":       {Container: k.id, TTY: true},
	} {
		if _, err := n.dial("ref").Attach(n.t.Context(), o); err == nil {
			n.t.Errorf("%s: attached", what)
		}
	}
	k.delete()
	n.end("ref")
}

func closeStdin(n *node) {
	w := want{stdin: shimapi.StdinURI}
	k := n.shell("cls", "cat; echo over", w).run(w)
	if err := k.task.CloseIO(n.t.Context(), withStdin); err != nil {
		n.t.Fatal(err)
	}
	k.exit(10 * time.Second)
	if got := content(k.log(), "stdout"); got != "over\n" {
		n.t.Errorf("log %q", got)
	}
	k.delete()
	n.end("cls")
}
