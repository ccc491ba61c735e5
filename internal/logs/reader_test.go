package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	at := time.Date(2016, 10, 6, 0, 17, 9, 669794202, time.UTC)
	for line, want := range map[string]Record{
		"2016-10-06T00:17:09.669794202Z stdout F log content 1\n":  {Time: at, Stream: Stdout, Content: []byte("log content 1")},
		"2016-10-06T00:17:09.669794202Z stderr P part":             {Time: at, Stream: Stderr, Partial: true, Content: []byte("part")},
		"2016-10-06T00:17:09.669794202Z stdout F \n":               {Time: at, Stream: Stdout, Content: []byte{}},
		"2016-10-06T00:17:09.669794202Z stdout F\n":                {Time: at, Stream: Stdout, Content: nil},
		"2016-10-06T02:17:09.669794202+02:00 stdout F:x:y  a b \n": {Time: at, Stream: Stdout, Content: []byte(" a b ")},
		"2016-10-06T00:17:09.669794202Z stdout P:tag \x00\xff\r\n": {Time: at, Stream: Stdout, Partial: true, Content: []byte("\x00\xff\r")},
	} {
		got, err := Parse([]byte(line))
		if err != nil || !got.Time.Equal(want.Time) || got.Stream != want.Stream || got.Partial != want.Partial || !bytes.Equal(got.Content, want.Content) {
			t.Errorf("Parse(%q) = %+v, %v", line, got, err)
		}
	}
	for _, line := range []string{
		"", "\n", "x", "2016-10-06T00:17:09Z", "2016-10-06T00:17:09Z stdout", "2016-10-06T00:17:09Z stdout X y",
		"2016-10-06T00:17:09Z stdin F y", "2016-13-06T00:17:09Z stdout F y", " stdout F y",
		strings.Repeat("2", 4000) + " stdout F y", `{"log":"docker\n","stream":"stdout"}`,
	} {
		if r, err := Parse([]byte(line)); err == nil {
			t.Errorf("Parse(%.60q) = %+v, want an error", line, r)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("2016-10-06T00:17:09.669794202Z stdout F log content 1\n"))
	f.Add([]byte("2016-10-06T00:17:09Z stderr P:a:b x"))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := Parse(line)
		if err == nil && len(r.Content) > len(line) {
			t.Fatal("content longer than the line")
		}
	})
}

// FuzzRead: whatever a log file holds, reading ends and shows no more than it.
func FuzzRead(f *testing.F) {
	f.Add([]byte("2016-10-06T00:17:09Z stdout F a\n2016-10-06T00:17:09Z stdout P b"), 1)
	f.Add(bytes.Repeat([]byte("z"), 3*RecordMax), -1)
	f.Fuzz(func(t *testing.T, data []byte, tail int) {
		path := filepath.Join(t.TempDir(), "0.log")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := Read(t.Context(), path, ReadOptions{Tail: tail}, &out, &out); err != nil {
			t.Fatal(err)
		}
		if out.Len() > len(data) {
			t.Fatal("more out than in")
		}
	})
}

func read(t *testing.T, path string, o ReadOptions) (stdout, stderr string) {
	t.Helper()
	var a, b bytes.Buffer
	if err := Read(t.Context(), path, o, &a, &b); err != nil {
		t.Fatal(err)
	}
	return a.String(), b.String()
}

func TestReadOptions(t *testing.T) {
	now := noon
	w := newWriter(t, Config{MaxSize: 150, MaxFiles: 50, Now: func() time.Time { return now }})
	so, se := w.Stream(Stdout), w.Stream(Stderr)
	long := strings.Repeat("L", MaxContent+5)
	for i := range 10 {
		so.Write(fmt.Appendf(nil, "out %d\n", i))
		se.Write(fmt.Appendf(nil, "err %d\n", i))
		now = now.Add(time.Second)
	}
	so.Write([]byte(long + "\n"))
	so.Write([]byte("last"))
	so.Flush()

	var outs, errs strings.Builder
	for i := range 10 {
		fmt.Fprintf(&outs, "out %d\n", i)
		fmt.Fprintf(&errs, "err %d\n", i)
	}
	outs.WriteString(long + "\nlast")
	for name, c := range map[string]struct {
		o        ReadOptions
		out, err string
	}{
		"all":            {ReadOptions{Tail: -1}, outs.String(), errs.String()},
		"stdout":         {ReadOptions{Tail: -1, Stream: Stdout}, outs.String(), ""},
		"stderr":         {ReadOptions{Tail: -1, Stream: Stderr}, "", errs.String()},
		"tail 0":         {ReadOptions{}, "", ""},
		"tail 1":         {ReadOptions{Tail: 1}, "last", ""},
		"tail 2 of P":    {ReadOptions{Tail: 2}, long + "\nlast", ""},
		"tail 4":         {ReadOptions{Tail: 4}, "out 9\n" + long + "\nlast", "err 9\n"},
		"tail of err":    {ReadOptions{Tail: 2, Stream: Stderr}, "", "err 8\nerr 9\n"},
		"tail over all":  {ReadOptions{Tail: 1000}, outs.String(), errs.String()},
		"since":          {ReadOptions{Tail: -1, Stream: Stderr, Since: noon.Add(8 * time.Second)}, "", "err 8\nerr 9\n"},
		"since future":   {ReadOptions{Tail: -1, Since: noon.Add(time.Hour)}, "", ""},
		"limit":          {ReadOptions{Tail: -1, Limit: 9}, "out 0\n", "err"},
		"timestamps":     {ReadOptions{Tail: 1, Timestamps: true}, "2026-01-02T12:00:10.123456789Z last", ""},
		"timestamp of P": {ReadOptions{Tail: 2, Timestamps: true, Limit: 40}, "2026-01-02T12:00:10.123456789Z LLLLLLLLL", ""},
	} {
		t.Run(name, func(t *testing.T) {
			out, errOut := read(t, w.cfg.Path, c.o)
			if out != c.out || errOut != c.err {
				t.Errorf("got %.300q and %.300q, want %.300q and %.300q", out, errOut, c.out, c.err)
			}
		})
	}
}

// Tail gives the same as cutting all: for random logs and numbers.
func TestTailProperty(t *testing.T) {
	for range 30 {
		w := newWriter(t, Config{MaxSize: 1 + rand.Int64N(300_000), MaxFiles: 1000})
		s := w.Stream(Stdout)
		for range rand.IntN(200) {
			s.Write(append(bytes.Repeat([]byte{'a' + byte(rand.IntN(26))}, rand.IntN(rand.IntN(40_000)+1)), '\n'))
		}
		if rand.IntN(2) == 0 { // a last line without end
			s.Write(bytes.Repeat([]byte{'z'}, 1+rand.IntN(40_000)))
			s.Flush()
		}
		_ = w.Open()
		all, _ := read(t, w.cfg.Path, ReadOptions{Tail: -1})
		lines := strings.SplitAfter(all, "\n")
		if lines[len(lines)-1] == "" {
			lines = lines[:len(lines)-1]
		}
		n := rand.IntN(len(lines) + 5)
		want := strings.Join(lines[max(0, len(lines)-n):], "")
		if got, _ := read(t, w.cfg.Path, ReadOptions{Tail: n}); got != want {
			t.Fatalf("tail %d of %d lines: %d bytes, want %d", n, len(lines), len(got), len(want))
		}
	}
}

// A follower sees every line, across as many rotations as the disk keeps, and
// ends when the container has ended.
func TestFollowAcrossRotation(t *testing.T) {
	const lines = 20_000
	w := newWriter(t, Config{MaxSize: 2000, MaxFiles: 100_000})
	if err := w.Open(); err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		s := w.Stream(Stdout)
		for i := range lines {
			s.Write(fmt.Appendf(nil, "%d\n", i))
		}
		end()
	})
	var out bytes.Buffer
	err := Read(t.Context(), w.cfg.Path, ReadOptions{Follow: true, Tail: -1, Ended: ended}, &out, io.Discard)
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	next := 0
	for line := range strings.Lines(out.String()) {
		if line != fmt.Sprintf("%d\n", next) {
			t.Fatalf("line %q, want %d", line, next)
		}
		next++
	}
	if next != lines {
		t.Errorf("%d lines, want %d", next, lines)
	}
	if st := w.Stats(); st.Rotations < 100 {
		t.Errorf("the test rotated only %d times", st.Rotations)
	}
}

// A follower that cannot keep up loses whole files, but sees no line twice and
// none out of order.
func TestFollowWithDroppedFiles(t *testing.T) {
	w := newWriter(t, Config{MaxSize: 1000, MaxFiles: 2})
	s := w.Stream(Stdout)
	s.Write([]byte("0\n"))
	ended, end := context.WithCancel(t.Context())
	var out bytes.Buffer
	n := 0
	slow := writerFunc(func(p []byte) (int, error) {
		if out.Len() > 20_000 {
			end()
			return out.Write(p)
		}
		for range 500 { // while the reader holds a file, many pass by
			n++
			s.Write(fmt.Appendf(nil, "%d\n", n))
		}
		return out.Write(p)
	})
	if err := Read(t.Context(), w.cfg.Path, ReadOptions{Follow: true, Tail: -1, Ended: ended}, slow, io.Discard); err != nil {
		t.Fatal(err)
	}
	last := -1
	for line := range strings.Lines(out.String()) {
		var got int
		if _, err := fmt.Sscanf(line, "%d", &got); err != nil || got <= last {
			t.Fatalf("%q after %d", line, last)
		}
		last = got
	}
	if last != n {
		t.Errorf("the last line is %d, want %d", last, n)
	}
	if st := w.Stats(); st.DroppedFiles == 0 {
		t.Error("the test dropped no file")
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestFollowStops(t *testing.T) {
	w := newWriter(t, Config{})
	w.Stream(Stdout).Write([]byte("a\n"))
	ctx, cancel := context.WithCancel(t.Context())
	stop := writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	if err := Read(ctx, w.cfg.Path, ReadOptions{Follow: true, Tail: -1}, stop, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("told to stop: %v", err)
	}
	remove := writerFunc(func(p []byte) (int, error) { return len(p), os.RemoveAll(filepath.Dir(w.cfg.Path)) })
	if err := Read(t.Context(), w.cfg.Path, ReadOptions{Follow: true, Tail: -1}, remove, io.Discard); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory removed: %v", err)
	}
}

// Links and FIFOs in the place of a log are refused, and do not hang.
func TestReadRefusesPlanted(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("2016-10-06T00:17:09Z stdout F secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(p string) error{
		"link": func(p string) error { return os.Symlink(secret, p) },
		"fifo": func(p string) error { return unix.Mkfifo(p, 0o600) },
		"dir":  func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		path := filepath.Join(dir, name, "c", "0.log")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := plant(path); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := Read(t.Context(), path, ReadOptions{Tail: -1}, &out, &out); err == nil || out.Len() > 0 {
			t.Errorf("%s: %v, shown %q", name, err, out.String())
		}
	}
	if err := os.Symlink(filepath.Join(dir), filepath.Join(dir, "link", "c2")); err != nil {
		t.Fatal(err)
	}
	if err := Read(t.Context(), filepath.Join(dir, "link", "c2", "secret"), ReadOptions{Tail: -1}, io.Discard, io.Discard); err == nil {
		t.Error("a directory link was followed")
	}
	if err := Read(t.Context(), filepath.Join(dir, "none", "0.log"), ReadOptions{Tail: -1}, io.Discard, io.Discard); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no log: %v", err)
	}
}

func TestInstances(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"0.log", "2.log", "2.log.20260102-120000", "10.log.20260102-120000-000000003", "x.log", "3.log.bak", "-1.log", "04.log", "7.log.gz"} {
		if err := os.WriteFile(filepath.Join(dir, n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Instances(dir)
	if err != nil || !slices.Equal(got, []int{0, 2, 10}) {
		t.Errorf("Instances = %v, %v", got, err)
	}
	if err := Remove(dir, 2); err != nil {
		t.Fatal(err)
	}
	if got, _ = Instances(dir); !slices.Equal(got, []int{0, 10}) {
		t.Errorf("after Remove: %v", got)
	}
	if got, err := Instances(filepath.Join(dir, "none")); err != nil || got != nil {
		t.Errorf("no directory: %v, %v", got, err)
	}
	if err := Remove(filepath.Join(dir, "none"), 1); err != nil {
		t.Error(err)
	}
}
