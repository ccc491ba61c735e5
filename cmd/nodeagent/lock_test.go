package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLock(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockRunDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockRunDir(dir); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d;", os.Getpid())) {
		t.Errorf("a second daemon is told %v", err)
	}
	unlock()
	unlock, err = lockRunDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// TestLockOfTheDead: a killed daemon's child may hold the lock for a moment.
func TestLockOfTheDead(t *testing.T) {
	dir := t.TempDir()
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("4194305\n"); err != nil { // above the kernel's highest pid
		t.Fatal(err)
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() { f.Close() })
	unlock, err := lockRunDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// TestLockOverLitter: what is no file of ours is put aside, and what a link leads
// to is not written.
func TestLockOverLitter(t *testing.T) {
	for name, litter := range map[string]func(path, canary string) error{
		"directory": func(path, _ string) error { return os.MkdirAll(filepath.Join(path, "x"), 0o755) },
		"link":      func(path, canary string) error { return os.Symlink(canary, path) },
		"fifo":      func(path, _ string) error { return unix.Mkfifo(path, 0o600) },
	} {
		dir := t.TempDir()
		canary := filepath.Join(dir, "canary")
		if err := os.WriteFile(canary, []byte("sings"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := litter(filepath.Join(dir, "lock"), canary); err != nil {
			t.Fatal(err)
		}
		unlock, err := lockRunDir(dir)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		unlock()
		if b, err := os.ReadFile(canary); err != nil || string(b) != "sings" {
			t.Errorf("%s: what a link leads to holds %q, %v", name, b, err)
		}
	}
}
