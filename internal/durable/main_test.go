package durable

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"nodeagent/internal/test/apart"
	"nodeagent/internal/test/power"
)

// insideEnv marks the test process with a mount namespace of its own, so that
// no mount of a test is seen by, or left on, the host.
const insideEnv = "DURABLE_TEST_INSIDE"

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	if os.Getenv(insideEnv) == "" {
		os.Exit(apart.Rerun(insideEnv, unix.CLONE_NEWNS))
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		fmt.Fprintln(os.Stderr, "make mounts private:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func newDir(t testing.TB, path string) *Dir {
	t.Helper()
	d, err := New(Config{Path: path})
	must(t, err)
	_, err = d.Prepare()
	must(t, err)
	return d
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mount mounts for the time of a test; umount may be called earlier.
func mount(t testing.TB, source, fstype, data string) (dir string, umount func()) {
	t.Helper()
	dir = t.TempDir()
	must(t, unix.Mount(source, dir, fstype, 0, data))
	done := false
	umount = func() {
		if !done {
			done = true
			must(t, unix.Unmount(dir, 0))
		}
	}
	t.Cleanup(umount)
	return dir, umount
}

// ext4 makes an image of a size on dir and mounts it.
func ext4(t testing.TB, on, size string, mkfs ...string) (image, dir string, umount func()) {
	t.Helper()
	image = filepath.Join(on, "image")
	run(t, "truncate", "-s", size, image)
	run(t, "mkfs.ext4", append(append([]string{"-q", "-F"}, mkfs...), image)...)
	dir, umount = loop(t, image)
	return image, dir, umount
}

func loop(t testing.TB, image string) (dir string, umount func()) {
	t.Helper()
	dir = t.TempDir()
	if _, err := power.Mount(image, dir); err != nil {
		t.Fatal(err)
	}
	done := false
	umount = func() {
		if !done {
			done = true
			run(t, "umount", dir)
		}
	}
	t.Cleanup(umount)
	return dir, umount
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}
