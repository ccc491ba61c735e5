// Package mkdir makes directories whose mode is the one that was asked for,
// whatever the process's umask is: the daemon's unit has UMask=0077, so that
// nothing becomes readable by accident, but logs and volumes are read by others
// than root. It never changes a directory that is there already, which is its
// owner's to decide. Any goroutine may call it.
package mkdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// All makes the directory path and those above it that are missing, all with
// the permissions of mode. A path that is a directory already is no error.
func All(path string, mode fs.FileMode) error {
	switch err := One(path, mode); {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		if parent := filepath.Dir(path); parent != path {
			if err := All(parent, mode); err != nil {
				return err
			}
		}
		if err := One(path, mode); err == nil || !errors.Is(err, fs.ErrExist) {
			return err
		}
		return isDir(path) // somebody else made it meanwhile
	case errors.Is(err, fs.ErrExist):
		return isDir(path)
	default:
		return err
	}
}

// One makes the directory path with the permissions of mode; the one above must
// be there and path must not.
func One(path string, mode fs.FileMode) error {
	if err := os.Mkdir(path, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// At makes the directory name in the open directory dir, with the permissions of
// mode. It follows no link: a name that a pod could have put there leads nowhere.
func At(dir int, name string, mode uint32) error {
	if err := unix.Mkdirat(dir, name, mode); err != nil {
		return &os.PathError{Op: "mkdirat", Path: name, Err: err}
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "openat", Path: name, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Fchmod(fd, mode); err != nil {
		return &os.PathError{Op: "fchmod", Path: name, Err: err}
	}
	return nil
}

func isDir(path string) error {
	st, err := os.Stat(path)
	if err == nil && !st.IsDir() {
		err = &os.PathError{Op: "mkdir", Path: path, Err: fmt.Errorf("it is no directory: %w", unix.ENOTDIR)}
	}
	return err
}
