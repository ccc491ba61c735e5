package logs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/test/need"
)

// The directory is removed, or the file moved away, under a writer: within a
// second it begins anew, and it never fails.
func TestDirectoryRemoved(t *testing.T) {
	now := noon
	w := newWriter(t, Config{Now: func() time.Time { return now }})
	s := w.Stream(Stdout)
	s.Write([]byte("one\n"))
	for _, harm := range []func() error{
		func() error { return os.RemoveAll(filepath.Dir(filepath.Dir(w.cfg.Path))) },
		func() error { return os.Remove(w.cfg.Path) },
		func() error { return os.Rename(w.cfg.Path, w.cfg.Path+".old") },
	} {
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Second)
		s.Write([]byte("again\n"))
		if got := string(join(t, readAll(t, w.cfg.Path))); got != "again\n" {
			t.Fatalf("content %q", got)
		}
	}
	if st := w.Stats(); st.DroppedLines != 0 {
		t.Errorf("stats %+v", st)
	}
}

func TestPlantedFiles(t *testing.T) {
	for name, plant := range map[string]func(path, secret string) error{
		"link":      func(p, s string) error { return os.Symlink(s, p) },
		"hard link": func(p, s string) error { return os.Link(s, p) },
		"fifo":      func(p, s string) error { return unix.Mkfifo(p, 0o600) },
		"dangling":  func(p, s string) error { return os.Symlink(s+"-none", p) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, secret := filepath.Join(dir, "p", "c", "0.log"), filepath.Join(dir, "secret")
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(secret, []byte("keep"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := plant(path, secret); err != nil {
				t.Fatal(err)
			}
			w := newWriter(t, Config{Path: path, Now: fixed})
			w.Stream(Stdout).Write([]byte("mine\n"))
			if got := readAll(t, secret); got != "keep" {
				t.Errorf("the planted file was written to: %q", got)
			}
			if _, err := os.Lstat(secret + "-none"); err == nil {
				t.Error("a file was made through the link")
			}
			if got := string(join(t, readAll(t, path))); got != "mine\n" {
				t.Errorf("content %q", got)
			}
		})
	}
}

func TestPlantedDirectory(t *testing.T) {
	dir := t.TempDir()
	elsewhere := filepath.Join(dir, "elsewhere")
	if err := os.MkdirAll(elsewhere, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"p/c", "p2"} {
		path := filepath.Join(dir, "logs", strings.Split(link, "/")[0], "c", "0.log")
		at := filepath.Join(dir, "logs", link)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(elsewhere, at); err != nil {
			t.Fatal(err)
		}
		w := newWriter(t, Config{Path: path})
		w.Stream(Stdout).Write([]byte("line\n"))
		if left, _ := os.ReadDir(elsewhere); len(left) != 0 {
			t.Errorf("%s was followed: %v", link, left)
		}
		if st := w.Stats(); st.DroppedLines != 1 || st.LastError == "" {
			t.Errorf("stats %+v", st)
		}
	}
}

// smallDisk mounts a tmpfs of the given size.
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	need.Have(t, need.Root)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A full disk costs the oldest files, then the newest lines, never a wait; all
// is counted, every record in the files is whole, and it heals.
func TestDiskFull(t *testing.T) {
	dir := smallDisk(t, "size=256k")
	now := noon
	path := filepath.Join(dir, "p", "c", "0.log")
	w := newWriter(t, Config{Path: path, MaxSize: 64 << 10, MaxFiles: 100, Now: func() time.Time { return now }})
	s := w.Stream(Stdout)
	n := 0
	chunk := func(lines int) (b []byte) {
		for range lines {
			b = fmt.Appendf(b, "%08d%s\n", n, strings.Repeat(".", 91))
			n++
		}
		return b
	}
	for range 50 {
		s.Write(chunk(100))
		now = now.Add(10 * time.Millisecond)
	}
	st := w.Stats()
	if st.DroppedFiles == 0 || st.DroppedLines != 0 || st.LastError != "" {
		t.Fatalf("with files of our own to drop: %+v", st)
	}
	// Somebody else takes the room that our files leave.
	hog, err := os.Create(filepath.Join(dir, "hog"))
	if err != nil {
		t.Fatal(err)
	}
	defer hog.Close()
	for range 20 {
		_, _ = hog.Write(make([]byte, 256<<10))
		s.Write(chunk(100))
		now = now.Add(200 * time.Millisecond)
	}
	st = w.Stats()
	if st.DroppedLines == 0 || st.LastError == "" || int(st.Lines+st.DroppedLines) != n {
		t.Fatalf("%d lines were written; %+v", n, st)
	}
	if err := hog.Truncate(0); err != nil {
		t.Fatal(err)
	}
	now = now.Add(restAfter)
	s.Write(chunk(10))
	after := w.Stats()
	if after.DroppedLines != st.DroppedLines || after.LastError != "" {
		t.Fatalf("with room again: %+v", after)
	}
	names, _ := onDisk(t, path)
	last := -1
	for _, name := range names {
		for line := range strings.Lines(readAll(t, filepath.Join(filepath.Dir(path), name))) {
			r, err := Parse([]byte(line))
			if err != nil || len(r.Content) != 99 {
				t.Fatalf("%s holds %q: %v", name, line, err)
			}
			if _, err := fmt.Sscanf(string(r.Content), "%d", &last); err != nil {
				t.Fatal(err)
			}
		}
	}
	if last != n-1 {
		t.Errorf("the last line is %d, want %d", last, n-1)
	}
}

func TestInodesExhausted(t *testing.T) {
	dir := smallDisk(t, "nr_inodes=6")
	path := filepath.Join(dir, "p", "c", "0.log") // root, p, c: three are left
	w := newWriter(t, Config{Path: path, MaxSize: 200, MaxFiles: 50})
	s := w.Stream(Stdout)
	for range 40 {
		s.Write([]byte(strings.Repeat("i", 100) + "\n"))
	}
	st := w.Stats()
	if st.DroppedLines != 0 || st.Rotations < 30 || st.DroppedFiles < 30 {
		t.Errorf("stats %+v", st)
	}
}

func TestReadOnlyFileSystem(t *testing.T) {
	dir := smallDisk(t, "size=1m")
	now := noon
	w := newWriter(t, Config{Path: filepath.Join(dir, "p", "c", "0.log"), Now: func() time.Time { return now }})
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	s := w.Stream(Stdout)
	s.Write([]byte("lost\n"))
	if st := w.Stats(); st.DroppedLines != 1 || st.LastError == "" {
		t.Fatalf("stats %+v", st)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	now = now.Add(restAfter)
	s.Write([]byte("kept\n"))
	if got := string(join(t, readAll(t, w.cfg.Path))); got != "kept\n" {
		t.Errorf("content %q", got)
	}
}
