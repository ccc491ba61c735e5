package openat2

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Somebody who renames in a loop, elsewhere on the node, keeps nobody from opening what
// lies behind a link that climbs; and what a path may not lead to stays shut.
func TestOpenBesideRenames(t *testing.T) {
	dir := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "a/b/c/d"), 0o700),
		os.Symlink("../b/../b/c/../c/d", filepath.Join(dir, "a/b/climbs")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(at)
	defer renames(t)()

	var want, got unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "a/b/c/d"), &want); err != nil {
		t.Fatal(err)
	}
	disturbed := 0
	for round := 0; disturbed < 500 && round < 500_000; round++ {
		// The bare call shows that there is something to bear.
		switch fd, err := unix.Openat2(at, "a/b/c/../climbs", &unix.OpenHow{Flags: unix.O_PATH, Resolve: unix.RESOLVE_IN_ROOT}); err {
		case nil:
			_ = unix.Close(fd)
		case unix.EAGAIN:
			disturbed++
		default:
			t.Fatal(err)
		}
		fd, err := Open(at, "a/b/c/../climbs", unix.O_PATH, unix.RESOLVE_IN_ROOT)
		if err != nil {
			t.Fatalf("open: %v, after %d look-ups were disturbed", err, disturbed)
		}
		err = unix.Fstat(fd, &got)
		_ = unix.Close(fd)
		if err != nil || got.Ino != want.Ino {
			t.Fatalf("opened inode %d, %v; want %d", got.Ino, err, want.Ino)
		}
	}
	if disturbed == 0 && runtime.NumCPU() > 1 {
		t.Error("none of 500 000 look-ups was disturbed: there is nothing to see")
	}
	for path, want := range map[string]error{"a/../../x": unix.EXDEV, "a/absent": unix.ENOENT} {
		if _, err := Open(at, path, unix.O_PATH, unix.RESOLVE_BENEATH); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
}

// renames gives a file one name after the other until it is told to end.
func renames(t *testing.T) (end func()) {
	dir := t.TempDir()
	one, other := filepath.Join(dir, "one"), filepath.Join(dir, "other")
	if err := os.WriteFile(one, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := errors.Join(os.Rename(one, other), os.Rename(other, one)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	return func() { close(stop); wg.Wait() }
}
