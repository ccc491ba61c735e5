package source

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// step is a source without inotify, moved on by hand: what is missed by events
// is found by looking.
type step struct {
	*Manifests
	last  Snapshot
	count int
}

func newStep(t *testing.T, dir string) *step {
	s := &step{}
	s.Manifests = testSource(t, dir, func(c *Config) {
		c.Rescan = 20 * time.Second
		c.Emit = func(snap Snapshot) { s.last = snap; s.count++ }
	})
	return s
}

func (s *step) rescan() []string {
	s.scan(nil)
	s.emit()
	return podNames(s.last)
}

// after lets time go by and looks at what is due.
func (s *step) after(d time.Duration) []string {
	time.Sleep(d) // a fake clock
	s.lookAgain(nil)
	s.emit()
	return podNames(s.last)
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestWithoutEvents(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := newStep(t, dir)
		same(t, "empty", s.rescan())
		put(t, filepath.Join(dir, "a.yaml"), manifest("a"))
		same(t, "found", s.rescan(), "a")
		count := s.count
		time.Sleep(time.Hour)
		same(t, "unchanged", s.rescan(), "a")
		if s.count != count {
			t.Error("a scan that found nothing new sent a snapshot")
		}
		do(t, os.Remove(filepath.Join(dir, "a.yaml")))
		same(t, "missed once", s.rescan(), "a")
		same(t, "not yet", s.after(20*time.Second-time.Nanosecond), "a")
		same(t, "missed twice", s.after(time.Nanosecond))
		if len(s.pending) > 0 {
			t.Error("something is still waited for")
		}
	})
}

func TestAbsenceIsConfirmed(t *testing.T) {
	for _, tc := range []struct {
		sign  sign
		delay time.Duration
	}{{signDeleted, confirmDeleted}, {signMoved, confirmMoved}} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			s := newStep(t, dir)
			put(t, filepath.Join(dir, "a.yaml"), manifest("a"))
			s.rescan()
			do(t, os.Remove(filepath.Join(dir, "a.yaml")))
			s.look("a.yaml", tc.sign)
			same(t, "at once", s.after(0), "a")
			same(t, "not yet", s.after(tc.delay-time.Nanosecond), "a")
			put(t, filepath.Join(dir, "a.yaml"), manifest("a"))
			s.look("a.yaml", signFinished)
			same(t, "back", s.after(time.Hour), "a")
			do(t, os.Remove(filepath.Join(dir, "a.yaml")))
			s.look("a.yaml", tc.sign)
			s.look("a.yaml", signSeen) // a scan in between prolongs nothing
			same(t, "gone", s.after(tc.delay))
		})
	}
}

// A file that was deleted with its directory is not gone but away.
func TestAbsenceIsNotConfirmedWithoutTheDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "manifests")
	synctest.Test(t, func(t *testing.T) {
		do(t, os.Mkdir(dir, 0o700))
		s := newStep(t, dir)
		put(t, filepath.Join(dir, "a.yaml"), manifest("a"))
		s.rescan()
		do(t, os.RemoveAll(dir))
		s.look("a.yaml", signDeleted)
		same(t, "directory gone", s.after(time.Second), "a")
		same(t, "still gone", s.rescan(), "a")
		do(t, os.Mkdir(dir, 0o700))
		same(t, "back and empty", s.rescan(), "a")
		same(t, "missed twice", s.after(20*time.Second))
	})
}

// A file that somebody holds open is looked at again, less and less often, and
// told of after a while.
func TestBusyFile(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := newStep(t, dir)
		reads, busy := 0, true
		s.read = func(path string, finished bool) (content, error) {
			if reads++; busy {
				return content{}, errBusy
			}
			return readQuiet(path, true)
		}
		put(t, filepath.Join(dir, "a.yaml"), manifest("a"))
		same(t, "busy", s.rescan())
		if s.last.Trusted {
			t.Error("trusted without the file")
		}
		for range 30 {
			for _, at := range s.pending {
				s.after(time.Until(at))
			}
		}
		if reads < 10 || reads > 40 {
			t.Errorf("it was read %d times", reads)
		}
		if len(s.last.Problems) != 1 || !strings.Contains(s.last.Problems[0].Message, "open for writing") {
			t.Errorf("problems %v", s.last.Problems)
		}
		busy = false
		same(t, "finished", s.after(time.Second), "a")
		if len(s.last.Problems) > 0 || !s.last.Trusted || len(s.pending) > 0 {
			t.Errorf("got %+v, pending %v", s.last, s.pending)
		}
	})
}

// A file system that hangs costs the others nothing, and its file nothing either.
func TestHangingRead(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := newStep(t, dir)
		hang := make(chan struct{})
		var stuck atomic.Bool
		s.read = func(path string, finished bool) (content, error) {
			if stuck.Load() && filepath.Base(path) != "z.yaml" {
				<-hang
			}
			return readQuiet(path, true)
		}
		put(t, filepath.Join(dir, "a.yaml"), manifest("a"))
		same(t, "before", s.rescan(), "a")
		stuck.Store(true)
		for i := range 2 * maxStuck {
			put(t, filepath.Join(dir, string(rune('b'+i))+".yaml"), manifest("never"))
		}
		put(t, filepath.Join(dir, "a.yaml"), manifest("a", "    args: [x]\n"))
		put(t, filepath.Join(dir, "z.yaml"), manifest("z"))
		begin := time.Now()
		same(t, "stuck", s.rescan(), "a")
		if took := time.Since(begin); took > maxStuck*readDeadline {
			t.Errorf("the scan took %s", took)
		}
		if len(s.stuck) != maxStuck {
			t.Errorf("%d reads hang, the limit is %d", len(s.stuck), maxStuck)
		}
		if !strings.Contains(s.last.Problems[0].Message, "takes too long") {
			t.Errorf("problems %v", s.last.Problems)
		}
		close(hang)
		stuck.Store(false)
		synctest.Wait()
		for range 5 {
			s.after(time.Second)
		}
		if got := podNames(s.last); !slices.Equal(got, []string{"a", "never", "z"}) || len(s.stuck) > 0 {
			t.Errorf("got %v, %d still hang", got, len(s.stuck))
		}
	})
}

// Where the file system cannot say whether somebody writes, a file is believed
// when its writer was seen to finish, or after it was left alone.
func TestWithoutLeases(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.yaml")
	put(t, path, manifest("a"))
	unknown := func(*os.File) (written, known bool) { return false, false }
	if _, err := readAsking(path, false, unknown); err != errBusy {
		t.Errorf("new: got %v", err)
	}
	if _, err := readAsking(path, true, unknown); err != nil {
		t.Errorf("finished: got %v", err)
	}
	old := time.Now().Add(-quietFor)
	do(t, os.Chtimes(path, old, old))
	if _, err := readAsking(path, false, unknown); err != nil {
		t.Errorf("left alone: got %v", err)
	}
	changing := func(f *os.File) (written, known bool) {
		_ = os.Truncate(path, 10) // while it is read
		return false, true
	}
	if _, err := readAsking(path, true, changing); err != errBusy {
		t.Errorf("changed meanwhile: got %v", err)
	}
}

// The kernel says who writes; without that the rest of this package is guesswork.
func TestWritersAreKnown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.yaml")
	put(t, path, "x")
	r, err := os.Open(path)
	do(t, err)
	defer r.Close()
	ask := func(want bool) {
		t.Helper()
		if written, known := hasWriters(r); written != want || !known {
			t.Fatalf("written is %t, known %t; want written %t", written, known, want)
		}
	}
	ask(false)
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	do(t, err)
	ask(true)
	if _, err := readQuiet(path, true); err != errBusy {
		t.Fatalf("got %v", err)
	}
	do(t, w.Close())
	ask(false)
	if w, err = os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0); err != nil {
		t.Fatalf("the question stays in a writer's way: %v", err)
	}
	do(t, w.Close())
}

// While a program writes without pause, in pieces, each content that is read is
// whole; and asking never disturbs the writer or kills this process (breaking a
// lease sends a signal).
func TestReadsAreWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.yaml")
	whole := strings.Repeat("0123456789abcdef", 64)
	put(t, path, whole)
	done := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			w, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
			if err != nil {
				done <- err
				return
			}
			for i := 0; i < len(whole); i += 16 {
				_, err = w.WriteString(whole[i : i+16])
			}
			if err = errors.Join(err, w.Close()); err != nil {
				done <- err
				return
			}
		}
	}()
	reads := 0
	for range 20_000 {
		c, err := readQuiet(path, true)
		if err == errBusy {
			continue
		}
		do(t, err)
		if reads++; string(c.data) != whole {
			t.Fatalf("%d bytes were read of %d", len(c.data), len(whole))
		}
	}
	close(stop)
	do(t, <-done)
	t.Logf("%d whole reads", reads)
}
