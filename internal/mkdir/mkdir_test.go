package mkdir_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"nodeagent/internal/mkdir"
)

// strict sets the umask of the daemon's unit. The mask is the process's, so no
// test here runs in parallel.
func strict(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	old := unix.Umask(0o077)
	t.Cleanup(func() { unix.Umask(old) })
	return dir
}

func modeOf(t *testing.T, path string) fs.FileMode {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Mode().Perm()
}

func TestAll(t *testing.T) {
	dir := strict(t)
	path := filepath.Join(dir, "a", "b", "c")
	for range 2 { // the second time all is there
		if err := mkdir.All(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for p := path; p != dir; p = filepath.Dir(p) {
		if m := modeOf(t, p); m != 0o755 {
			t.Errorf("%s has mode %o", p, m)
		}
	}
	// What is there is left as it is.
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := mkdir.All(path, 0o755); err != nil || modeOf(t, path) != 0o700 {
		t.Errorf("%v, mode %o", err, modeOf(t, path))
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{file, filepath.Join(file, "x")} {
		if err := mkdir.All(p, 0o755); !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("%s: %v", p, err)
		}
	}
	if err := mkdir.All("/", 0o755); err != nil {
		t.Error(err)
	}
}

func TestAllAtOnce(t *testing.T) {
	dir := strict(t)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if err := mkdir.All(filepath.Join(dir, "a", "b", "c", "d"), 0o711); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestAt(t *testing.T) {
	dir := strict(t)
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := mkdir.At(fd, "logs", 0o755); err != nil || modeOf(t, filepath.Join(dir, "logs")) != 0o755 {
		t.Errorf("%v, mode %o", err, modeOf(t, filepath.Join(dir, "logs")))
	}
	if err := mkdir.At(fd, "logs", 0o755); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made a second time: %v", err)
	}
	if err := os.Symlink("/etc", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := mkdir.At(fd, "link", 0o777); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a link: %v", err)
	}
}
