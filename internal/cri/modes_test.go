package cri

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInitRootModes: the sandbox's init runs as a user who owns nothing of its
// root, whatever the umask of the daemon.
func TestInitRootModes(t *testing.T) {
	root := filepath.Join(t.TempDir(), "init")
	defer unix.Umask(unix.Umask(0o077))
	if err := writeInitRoot(root); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Stat(path)
		if err == nil && st.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v", path, st.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
