package logs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 123456789, time.UTC)

func newWriter(t testing.TB, cfg Config) *Writer {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = filepath.Join(t.TempDir(), "pod", "ctr", "0.log")
	}
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func fixed() time.Time { return noon }

func readAll(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRecords(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	const head = "2026-01-02T12:00:00.123456789Z stdout "
	for name, c := range map[string]struct {
		writes []string
		want   string
	}{
		"line":            {[]string{"hello\n"}, head + "F hello\n"},
		"empty line":      {[]string{"\n"}, head + "F \n"},
		"lines":           {[]string{"a\nb\n"}, head + "F a\n" + head + "F b\n"},
		"pieces":          {[]string{"a", "b", "c\nd"}, head + "F abc\n" + head + "P d\n"},
		"no newline":      {[]string{"tail"}, head + "P tail\n"},
		"nothing":         {nil, ""},
		"exactly the max": {[]string{x(MaxContent) + "\n"}, head + "F " + x(MaxContent) + "\n"},
		"one over":        {[]string{x(MaxContent+1) + "\n"}, head + "P " + x(MaxContent) + "\n" + head + "F x\n"},
		"max in pieces":   {[]string{x(MaxContent), "\n"}, head + "F " + x(MaxContent) + "\n"},
		"over in pieces":  {[]string{x(MaxContent), "x\n"}, head + "P " + x(MaxContent) + "\n" + head + "F x\n"},
		"twice the max":   {[]string{x(2*MaxContent) + "\n"}, head + "P " + x(MaxContent) + "\n" + head + "F " + x(MaxContent) + "\n"},
		"binary":          {[]string{"\x00\xff\r\x1b[2J\n"}, head + "F \x00\xff\r\x1b[2J\n"},
		"newline alone":   {[]string{"a", "\n"}, head + "F a\n"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWriter(t, Config{Now: fixed})
			if err := w.Open(); err != nil {
				t.Fatal(err)
			}
			s := w.Stream(Stdout)
			for _, p := range c.writes {
				s.Write([]byte(p))
			}
			s.Flush()
			if got := readAll(t, w.cfg.Path); got != c.want {
				t.Errorf("log is\n%.200q\nwant\n%.200q", got, c.want)
			}
			if st := w.Stats(); int(st.Lines) != strings.Count(c.want, "\n") || int(st.Bytes) != len(strings.Join(c.writes, "")) {
				t.Errorf("stats %+v", st)
			}
		})
	}
}

func TestFlushInTheMiddleIsPartial(t *testing.T) {
	w := newWriter(t, Config{Now: fixed})
	s := w.Stream(Stderr)
	s.Write([]byte("be"))
	s.Flush()
	s.Write([]byte("gin\n"))
	const head = "2026-01-02T12:00:00.123456789Z stderr "
	if got := readAll(t, w.cfg.Path); got != head+"P be\n"+head+"F gin\n" {
		t.Errorf("log %q", got)
	}
}

func TestStampMatchesFormat(t *testing.T) {
	var s stamp
	for range 2000 {
		at := time.Unix(1_700_000_000+rand.Int64N(3), rand.Int64N(1e9))
		s.set(at)
		if want := at.UTC().Format(stampLayout); string(s.text[:]) != want {
			t.Fatalf("stamp %s, want %s", s.text[:], want)
		}
	}
}

// However a stream is cut into writes, the content of its records is what was
// written, and no record is longer than MaxContent.
func FuzzStream(f *testing.F) {
	f.Add([]byte("a\nb"), uint16(1))
	f.Add(bytes.Repeat([]byte("y"), 40000), uint16(5000))
	f.Fuzz(func(t *testing.T, data []byte, step uint16) {
		w := newWriter(t, Config{Now: fixed})
		s := w.Stream(Stdout)
		for p := range slices.Chunk(data, int(step)+1) {
			s.Write(p)
		}
		s.Flush()
		var got []byte
		if len(data) > 0 {
			got = join(t, readAll(t, w.cfg.Path))
		}
		if !bytes.Equal(got, data) {
			t.Fatalf("content differs: %d bytes, want %d", len(got), len(data))
		}
	})
}

func join(t testing.TB, log string) []byte {
	t.Helper()
	var out []byte
	for line := range strings.Lines(log) {
		r, err := Parse([]byte(line))
		if err != nil || len(r.Content) > MaxContent {
			t.Fatalf("record %.80q: %v", line, err)
		}
		out = append(out, r.Content...)
		if !r.Partial {
			out = append(out, '\n')
		}
	}
	return out
}

// onDisk lists the files of the log directory, oldest first, and their bytes.
func onDisk(t testing.TB, path string) (names []string, total int64) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			total += info.Size()
		}
		if e.Name() != filepath.Base(path) {
			names = append(names, e.Name())
		}
	}
	return append(names, filepath.Base(path)), total
}

// At no moment is there more than size × files; what is there is the newest
// part of what was written, without a hole.
func TestRotationBound(t *testing.T) {
	for _, c := range []struct {
		size  int64
		files int
	}{{1000, 1}, {1000, 2}, {4096, 5}, {100_000, 3}} {
		t.Run(fmt.Sprintf("%dx%d", c.size, c.files), func(t *testing.T) {
			now := noon
			w := newWriter(t, Config{MaxSize: c.size, MaxFiles: c.files, Now: func() time.Time { return now }})
			s := w.Stream(Stdout)
			n := 0
			var chunk []byte
			for round := range 400 {
				chunk = chunk[:0]
				for range 1 + rand.IntN(300) {
					chunk = fmt.Appendf(chunk, "%08d%s\n", n, strings.Repeat(".", rand.IntN(60)))
					n++
				}
				s.Write(chunk)
				if round%7 == 0 {
					now = now.Add(time.Second)
				}
				if round%50 == 49 {
					now = now.Add(-time.Hour) // the clock may go back
				}
				names, total := onDisk(t, w.cfg.Path)
				if total > c.size*int64(c.files) || len(names) > c.files {
					t.Fatalf("%d bytes in %v", total, names)
				}
			}
			names, _ := onDisk(t, w.cfg.Path)
			next := -1
			for _, name := range names {
				for line := range strings.Lines(readAll(t, filepath.Join(filepath.Dir(w.cfg.Path), name))) {
					r, err := Parse([]byte(line))
					if err != nil {
						t.Fatal(err)
					}
					var got int
					if _, err := fmt.Sscanf(string(r.Content), "%d", &got); err != nil || (next >= 0 && got != next) {
						t.Fatalf("in %s of %v: %q after %d", name, names, r.Content, next-1)
					}
					next = got + 1
				}
			}
			if next != n {
				t.Errorf("the last line is %d, want %d", next-1, n-1)
			}
			st := w.Stats()
			if st.Rotations == 0 || int(st.DroppedFiles) != int(st.Rotations)-(c.files-1) || st.DroppedLines != 0 {
				t.Errorf("stats %+v with %v", st, names)
			}
		})
	}
}

func TestRotatedNamesAreKubelets(t *testing.T) {
	w := newWriter(t, Config{MaxSize: 100, MaxFiles: 10, Now: fixed})
	for range 4 {
		w.Stream(Stdout).Write([]byte(strings.Repeat("z", 60) + "\n"))
	}
	names, _ := onDisk(t, w.cfg.Path)
	want := []string{"0.log.20260102-120000", "0.log.20260102-120000-000000001", "0.log.20260102-120000-000000002", "0.log"}
	if !slices.Equal(names, want) {
		t.Errorf("files %v, want %v", names, want)
	}
}

// One record longer than a file is the only thing over the limit.
func TestRecordLongerThanFile(t *testing.T) {
	w := newWriter(t, Config{MaxSize: 100, MaxFiles: 2, Now: fixed})
	for range 5 {
		w.Stream(Stdout).Write([]byte(strings.Repeat("z", 1000) + "\n"))
	}
	if _, total := onDisk(t, w.cfg.Path); total > 2*1100 {
		t.Errorf("%d bytes", total)
	}
}

// A writer that begins on files of another keeps to the limit with them.
func TestGoesOnAfterAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p", "c", "3.log")
	for range 5 {
		w := newWriter(t, Config{Path: path, MaxSize: 1000, MaxFiles: 3})
		s := w.Stream(Stdout)
		for range 20 {
			s.Write([]byte(strings.Repeat("z", 60) + "\n"))
		}
		_ = w.Close()
		if names, total := onDisk(t, path); total > 3000 || len(names) != 3 {
			t.Fatalf("%d bytes in %v", total, names)
		}
	}
}

func TestTornRecordOfAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p", "c", "0.log")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("2026-01-02T12:00:00Z stdout F half"), 0o644); err != nil {
		t.Fatal(err)
	}
	w := newWriter(t, Config{Path: path, Now: fixed})
	w.Stream(Stdout).Write([]byte("whole\n"))
	if got := string(join(t, readAll(t, path))); got != "half\nwhole\n" {
		t.Errorf("content %q", got)
	}
}

func TestWriteAfterClose(t *testing.T) {
	w := newWriter(t, Config{})
	s := w.Stream(Stdout)
	s.Write([]byte("a\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s.Write([]byte("b\n"))
	if st := w.Stats(); st.Lines != 1 || st.DroppedLines != 1 {
		t.Errorf("stats %+v", st)
	}
}

// A long line that comes in pieces of one byte costs no more memory than a
// record.
func TestCarryIsBounded(t *testing.T) {
	w := newWriter(t, Config{})
	s := w.Stream(Stdout)
	piece := bytes.Repeat([]byte("l"), 1000)
	for range 1000 {
		s.Write(piece)
		if len(s.carry) > MaxContent {
			t.Fatalf("carry of %d", len(s.carry))
		}
	}
	s.Flush()
	if s.lent != nil || cap(s.carry) > 2*keepCarry {
		t.Errorf("a carry of %d bytes is kept", cap(s.carry))
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{1, 20, 100, 1000} {
		b.Run(fmt.Sprintf("line%d", size), func(b *testing.B) {
			w := newWriter(b, Config{MaxSize: 64 << 20, MaxFiles: 2})
			s := w.Stream(Stdout)
			chunk := bytes.Repeat(append(bytes.Repeat([]byte("b"), size-1), '\n'), 64<<10/size)
			b.SetBytes(int64(len(chunk)))
			b.ReportAllocs()
			for b.Loop() {
				s.Write(chunk)
			}
		})
	}
}

// TestModes: collectors that are not root find the files, whatever the umask.
func TestModes(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	root := t.TempDir()
	path := filepath.Join(root, "logs", "pods", "pod", "container", "0.log")
	w := newWriter(t, Config{Path: path})
	w.Stream(Stdout).Write([]byte("x\n"))
	for dir := filepath.Dir(path); dir != root; dir = filepath.Dir(dir) {
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", dir, st.Mode(), err)
		}
	}
}
