package power

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"nodeagent/internal/test/need"
)

// TestMountAfterCut cuts a disk that another mount namespace holds on to: what
// is mounted anew must not be the file system that is dead.
func TestMountAfterCut(t *testing.T) {
	need.Have(t, need.Root)
	image, dir, held := filepath.Join(t.TempDir(), "image"), t.TempDir(), t.TempDir()
	for _, argv := range [][]string{{"truncate", "-s", "8M", image}, {"mkfs.ext4", "-q", image}} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", argv, err, out)
		}
	}
	mount := func() {
		t.Helper()
		if _, err := Mount(image, dir); err != nil {
			t.Fatal(err)
		}
	}
	mount()
	// A second mount holds the file system as a copied namespace does.
	if err := unix.Mount(dir, held, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(held, 0) })
	if err := Cut(dir, FlushNothing); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	mount()
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("alive"), 0o600); err != nil {
		t.Fatal(err)
	}
}
