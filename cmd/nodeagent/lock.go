package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			pid, _ := io.ReadAll(io.LimitReader(f, 32))
			return nil, fmt.Errorf("another daemon holds %s: process %s; stop it, or give this one a runDir of its own", f.Name(), strings.TrimSpace(string(pid)))
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, fmt.Sprintf("%d\n", os.Getpid()))); err != nil {
		f.Close()
		return nil, fmt.Errorf("write the daemon's lock: %w", err)
	}
	return func() { f.Close() }, nil
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

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}
