package rmdir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nodeagent/internal/test/need"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestDeepAndWide: a tree deeper than there are descriptors, with paths longer
// than any path may be, goes like any other.
func TestDeepAndWide(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tree")
	must(t, os.Mkdir(dir, 0o755))
	for i := range 3 * maxNames {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600))
	}
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	const name = "a-directory-in-a-directory"
	for range 5000 {
		must(t, unix.Mkdirat(fd, name, 0o700))
		next, err := unix.Openat(fd, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd = next
	}
	must(t, unix.Close(fd))
	for range 2 { // the second finds nothing
		must(t, Tree(t.Context(), dir))
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("the tree is left: %v", err)
	}
}

func TestLinksLeadNowhere(t *testing.T) {
	outside, dir := t.TempDir(), filepath.Join(t.TempDir(), "tree")
	must(t, os.WriteFile(filepath.Join(outside, "keep"), nil, 0o600))
	must(t, os.MkdirAll(filepath.Join(dir, "a"), 0o755))
	must(t, os.Symlink(outside, filepath.Join(dir, "a", "out")))
	must(t, os.Symlink("/", filepath.Join(dir, "root")))
	must(t, Tree(t.Context(), dir))
	if _, err := os.Stat(filepath.Join(outside, "keep")); err != nil {
		t.Errorf("what a link leads to was deleted: %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(outside, link))
	must(t, Tree(t.Context(), link))
	if _, err := os.Stat(filepath.Join(outside, "keep")); err != nil {
		t.Errorf("what the link leads to was deleted: %v", err)
	}
}

// TestMountsStay: a mount is named and left, all beside it goes.
func TestMountsStay(t *testing.T) {
	need.Have(t, need.Root)
	dir := filepath.Join(t.TempDir(), "tree")
	point := filepath.Join(dir, "a", "mount")
	must(t, os.MkdirAll(point, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "a", "z"), nil, 0o600))
	must(t, unix.Mount("tmpfs", point, "tmpfs", 0, "size=64k"))
	defer unix.Unmount(point, unix.MNT_DETACH)
	must(t, os.WriteFile(filepath.Join(point, "keep"), nil, 0o600))
	if err := Tree(t.Context(), dir); err == nil || strings.Count(err.Error(), "is a mount") != 1 {
		t.Errorf("a mount is told as %v", err)
	}
	if _, err := os.Stat(filepath.Join(point, "keep")); err != nil {
		t.Errorf("a file beyond the mount was deleted: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "a", "z")); !os.IsNotExist(err) {
		t.Errorf("what lies beside the mount is left: %v", err)
	}
}

func TestEndsWithItsContext(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tree")
	must(t, os.MkdirAll(filepath.Join(dir, "a"), 0o755))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Tree(ctx, dir); err == nil {
		t.Error("it went on after its context had ended")
	}
}
