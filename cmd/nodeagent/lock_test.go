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
	if err := writeAt(f, "4194305\n"); err != nil { // above the kernel's highest pid
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
