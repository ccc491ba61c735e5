package durable

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/test/need"
)

// wantLoad checks what a name holds.
func wantLoad(t testing.TB, d *Dir, name string, g Generation, payload string) Loaded {
	t.Helper()
	l, err := d.Load(name, nil)
	must(t, err)
	if l.Generation != g || string(l.Payload) != payload {
		t.Errorf("load %s: generation %d, %q; want %d, %q; bad: %v", name, l.Generation, l.Payload, g, payload, l.Bad)
	}
	return l
}

func TestSaveAndLoad(t *testing.T) {
	d := newDir(t, filepath.Join(t.TempDir(), "a", "b"))
	wantLoad(t, d, "x", None, "")
	for i, s := range []string{"one", "", strings.Repeat("long", 1<<18)} {
		must(t, d.Save("x", uint32(i), []byte(s)))
		if l := wantLoad(t, d, "x", Current, s); l.Version != uint32(i) || len(l.Bad) != 0 {
			t.Errorf("version %d, bad %v", l.Version, l.Bad)
		}
	}
	must(t, d.Save("y", 1, nil))
	if names, err := d.Names(); err != nil || fmt.Sprint(names) != "[x y]" {
		t.Errorf("names %v, %v", names, err)
	}
	st, err := os.Stat(d.full("x"))
	must(t, err)
	if st.Mode() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	must(t, d.Remove("x"))
	must(t, d.Remove("x"))
	wantLoad(t, d, "x", None, "")
	entries, _ := os.ReadDir(d.path)
	if len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
}

func TestMissingDirectoryIsNothing(t *testing.T) {
	d, err := New(Config{Path: filepath.Join(t.TempDir(), "none")})
	must(t, err)
	wantLoad(t, d, "x", None, "")
	must(t, d.Remove("x"))
	if names, err := d.Names(); len(names) != 0 || err != nil {
		t.Errorf("names %v, %v", names, err)
	}
}

func TestNamesRefused(t *testing.T) {
	d := newDir(t, t.TempDir())
	for _, name := range []string{"", ".", "..", "../x", "a/b", ".hidden", "x.prev", "x.bad-1", "x\x00", strings.Repeat("x", 300)} {
		if d.Save(name, 1, nil) == nil || d.Remove(name) == nil {
			t.Errorf("%q was taken", name)
		}
		if _, err := d.Load(name, nil); err == nil {
			t.Errorf("%q was loaded", name)
		}
	}
	if err := d.Save("x", 1, make([]byte, MaxPayload+1)); err == nil {
		t.Error("a payload beyond the limit was taken")
	}
	if _, err := New(Config{Path: "relative"}); err == nil {
		t.Error("a relative path was taken")
	}
}

// TestBadFiles: whatever is in place of the newest generation, Load gives the
// previous one, keeps the bad file aside, and the next Save works.
func TestBadFiles(t *testing.T) {
	for name, harm := range map[string]func(*Dir, string) error{
		"empty":       func(_ *Dir, f string) error { return os.Truncate(f, 0) },
		"header only": func(_ *Dir, f string) error { return os.Truncate(f, headerSize) },
		"cut":         func(_ *Dir, f string) error { return os.Truncate(f, headerSize+2) },
		"longer":      func(_ *Dir, f string) error { return appendTo(f, "x") },
		"NULs":        func(_ *Dir, f string) error { return os.WriteFile(f, make([]byte, 100), 0o600) },
		"text": func(_ *Dir, f string) error {
			return os.WriteFile(f, []byte(`{"json":"of an older version of the program"}`), 0o600)
		},
		"others can read": nil,
		"others can write": func(_ *Dir, f string) error {
			return os.Chmod(f, 0o602)
		},
		"link": func(d *Dir, f string) error {
			return errors.Join(os.Rename(f, d.full("elsewhere")), os.Symlink(d.full("elsewhere"), f))
		},
		"dangling link": func(_ *Dir, f string) error { return errors.Join(os.Remove(f), os.Symlink("/none", f)) },
		"FIFO":          func(_ *Dir, f string) error { return errors.Join(os.Remove(f), unix.Mkfifo(f, 0o600)) },
		"directory":     func(_ *Dir, f string) error { return errors.Join(os.Remove(f), os.Mkdir(f, 0o700)) },
		"sparse giant":  func(_ *Dir, f string) error { return os.Truncate(f, 1<<40) },
		"foreign owner": func(_ *Dir, f string) error { return os.Chown(f, 1000, 1000) },
	} {
		t.Run(name, func(t *testing.T) {
			if name == "foreign owner" {
				need.Have(t, need.Root)
			}
			d := newDir(t, t.TempDir())
			must(t, d.Save("x", 1, []byte("old")))
			must(t, d.Save("x", 1, []byte("new")))
			if harm == nil { // the one that is no harm
				must(t, os.Chmod(d.full("x"), 0o644))
				wantLoad(t, d, "x", Current, "new")
				return
			}
			must(t, harm(d, d.full("x")))
			l := wantLoad(t, d, "x", Previous, "old")
			if len(l.Bad) != 1 || l.Bad[0].Aside == "" || l.Bad[0].Reason == nil {
				t.Fatalf("bad: %+v", l.Bad)
			}
			if _, err := os.Lstat(l.Bad[0].Aside); err != nil {
				t.Error(err)
			}
			must(t, d.Save("x", 1, []byte("newer")))
			wantLoad(t, d, "x", Current, "newer")
		})
	}
}

func appendTo(path, s string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(s)
	return err
}

func TestBothBad(t *testing.T) {
	d := newDir(t, t.TempDir())
	must(t, d.Save("x", 1, []byte("old")))
	must(t, d.Save("x", 1, []byte("new")))
	must(t, os.Truncate(d.full("x"), 3))
	must(t, os.Truncate(d.full("x.prev"), 3))
	if l := wantLoad(t, d, "x", None, ""); len(l.Bad) != 2 {
		t.Errorf("bad: %v", l.Bad)
	}
	wantLoad(t, d, "x", None, "") // and the next start is clean
}

// TestPeekMovesNothing: who may only look gets the same, and leaves a bad file where it is.
func TestPeekMovesNothing(t *testing.T) {
	d := newDir(t, t.TempDir())
	must(t, d.Save("x", 1, []byte("old")))
	must(t, d.Save("x", 1, []byte("new")))
	must(t, os.Truncate(d.full("x"), 3))
	before, err := os.ReadDir(d.full(""))
	must(t, err)
	l, err := d.Peek("x", nil)
	must(t, err)
	if l.Generation != Previous || string(l.Payload) != "old" || len(l.Bad) != 1 || l.Bad[0].Aside != "" {
		t.Errorf("it finds %+v", l)
	}
	after, err := os.ReadDir(d.full(""))
	must(t, err)
	if !slices.EqualFunc(before, after, func(x, y os.DirEntry) bool { return x.Name() == y.Name() }) {
		t.Errorf("before there was %v, then %v", before, after)
	}
}

// TestAccept: a payload that its owner cannot use falls back like a flipped bit.
func TestAccept(t *testing.T) {
	d := newDir(t, t.TempDir())
	must(t, d.Save("x", 1, []byte("old")))
	must(t, d.Save("x", 2, []byte("from the future")))
	l, err := d.Load("x", func(version uint32, _ []byte) error {
		if version != 1 {
			return fmt.Errorf("version %d is unknown", version)
		}
		return nil
	})
	must(t, err)
	if l.Generation != Previous || l.Version != 1 || string(l.Payload) != "old" || len(l.Bad) != 1 {
		t.Errorf("%+v", l)
	}
}

// TestEveryByteMatters: no changed byte goes unseen.
func TestEveryByteMatters(t *testing.T) {
	whole := encode(7, []byte("what a node knows"))
	for i := range whole {
		for _, x := range []byte{1, 0x80, 0xff} {
			b := bytes.Clone(whole)
			b[i] ^= x
			if _, _, err := decode(b); err == nil {
				t.Errorf("byte %d xor %#x was not seen", i, x)
			}
		}
	}
	for i := range whole {
		if _, _, err := decode(whole[:i]); err == nil {
			t.Errorf("cut at %d was not seen", i)
		}
	}
}

func TestPrepareRemovesLitter(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	d, err := New(Config{Path: t.TempDir(), Now: func() time.Time { at = at.Add(time.Second); return at }})
	must(t, err)
	must(t, d.Save("x", 1, []byte("kept")))
	must(t, os.WriteFile(d.full(tempPrefix+"abc"), []byte("half"), 0o600))
	for i := range maxBad + 3 {
		name := []string{"a", "b"}[i%2]
		must(t, os.WriteFile(d.full(name), []byte("nonsense"), 0o600))
		wantLoad(t, d, name, None, "")
	}
	removed, err := d.Prepare()
	must(t, err)
	if len(removed) != 4 || !strings.Contains(strings.Join(removed, " "), "a.bad-20260102T030406") {
		t.Errorf("removed %v", removed)
	}
	wantLoad(t, d, "x", Current, "kept")
	if removed, err = d.Prepare(); len(removed) != 0 || err != nil {
		t.Errorf("removed again %v, %v", removed, err)
	}
}

func TestDirectoryRefused(t *testing.T) {
	for name, harm := range map[string]func(string) error{
		"others can write": func(p string) error { return os.Chmod(p, 0o777) },
		"foreign owner":    func(p string) error { return os.Chown(p, 1000, 1000) },
		"link":             func(p string) error { return errors.Join(os.Rename(p, p+"-real"), os.Symlink(p+"-real", p)) },
	} {
		t.Run(name, func(t *testing.T) {
			need.Have(t, need.Root)
			path := filepath.Join(t.TempDir(), "state")
			d := newDir(t, path)
			must(t, d.Save("x", 1, nil))
			must(t, harm(path))
			if err := d.Save("x", 1, nil); err == nil {
				t.Error("save succeeded")
			}
			if _, err := d.Load("x", nil); err == nil {
				t.Error("load succeeded")
			}
		})
	}
}

// TestSwapWithoutExchange is for file systems whose rename cannot exchange.
func TestSwapWithoutExchange(t *testing.T) {
	d := newDir(t, t.TempDir())
	must(t, d.Save("x", 1, []byte("old")))
	fd, err := d.open()
	must(t, err)
	defer unix.Close(fd)
	must(t, writeSynced(fd, ".tmp-t", encode(1, []byte("new"))))
	must(t, renameTwice(fd, ".tmp-t", "x"))
	wantLoad(t, d, "x", Current, "new")
	must(t, os.Remove(d.full("x")))
	wantLoad(t, d, "x", Previous, "old")
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(1, []byte("x")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		version, payload, err := decode(b)
		if err == nil && !bytes.Equal(encode(version, payload), b) {
			t.Error("two encodings of one content")
		}
	})
}

func FuzzLoad(f *testing.F) {
	f.Add(encode(1, []byte("current")), encode(1, []byte("previous")))
	f.Add([]byte("x"), encode(1, nil))
	d := newDir(f, f.TempDir())
	f.Fuzz(func(t *testing.T, current, previous []byte) {
		must(t, os.WriteFile(d.full("x"), current, 0o600))
		must(t, os.WriteFile(d.full("x.prev"), previous, 0o600))
		l, err := d.Load("x", nil)
		must(t, err)
		_, want, errCurrent := decode(current)
		_, wantPrev, errPrev := decode(previous)
		switch {
		case errCurrent == nil && !(l.Generation == Current && bytes.Equal(l.Payload, want)),
			errCurrent != nil && errPrev == nil && !(l.Generation == Previous && bytes.Equal(l.Payload, wantPrev)),
			errCurrent != nil && errPrev != nil && l.Generation != None:
			t.Errorf("loaded %+v", l)
		}
		for _, b := range l.Bad {
			_ = os.Remove(b.Aside)
		}
	})
}
