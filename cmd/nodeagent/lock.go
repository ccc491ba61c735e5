package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockRunDir makes this process the only daemon of the run directory. The lock
// is the kernel's, so that it ends with the process however that ends.
func lockRunDir(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the run directory: %w", err)
	}
	f, err := openLock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("open the daemon's lock: %w", err)
	}
	if err := takeLock(f); err != nil {
		defer f.Close()
		return nil, err
	}
	// For who comes second. Written over, not anew: a full disk has no room even
	// for that, and is no reason not to start.
	pid := fmt.Sprintf("%d\n", os.Getpid())
	if _, err := f.WriteAt([]byte(pid), 0); err == nil {
		_ = f.Truncate(int64(len(pid)))
	}
	return func() { f.Close() }, nil
}

// lockWait bounds the wait for the lock of a daemon that has died.
const lockWait = 5 * time.Second

// takeLock locks f. A daemon that was killed while it started a plugin keeps its
// lock until that child has come to its exec.
func takeLock(f *os.File) error {
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
	if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
		return lockError(f, err)
	}
	text, _ := io.ReadAll(io.LimitReader(f, 32))
	held := fmt.Errorf("another daemon holds %s: process %s; stop it, or give this one a runDir of its own", f.Name(), strings.TrimSpace(string(text)))
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
		return held
	}
	done := make(chan error, 1)
	go func() { done <- unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLKW, &lock) }() // ends with this process at the latest
	select {
	case err := <-done:
		return lockError(f, err)
	case <-time.After(lockWait):
		return held
	}
}

func lockError(f *os.File, err error) error {
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}

// openLock opens the lock, in place of whatever else has its name: what a link
// leads to is not ours to write, and no litter keeps the daemon from starting.
func openLock(path string) (*os.File, error) {
	if st, err := os.Lstat(path); err == nil && !st.Mode().IsRegular() {
		if err := os.Rename(path, path+".bad-"+time.Now().UTC().Format("20060102T150405.000000000Z")); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
}
