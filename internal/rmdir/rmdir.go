// Package rmdir deletes directory trees in which a pod may have put anything.
// It never follows a link, never leaves the mount that a tree begins on, and
// holds a bounded number of descriptors and names however deep and wide the tree
// is. What it cannot delete it leaves and names. Any goroutine may call it.
package rmdir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nodeagent/internal/openat2"
)

const (
	maxDepth  = 64   // directories open at a time; what lies deeper is moved up first
	maxNames  = 1024 // names read at a time
	maxErrors = 8    // told of one tree
)

// Tree deletes dir with all below it. A dir that is not there is no error.
func Tree(ctx context.Context, dir string) error {
	parent, err := unix.Open(filepath.Dir(dir), unix.O_DIRECTORY|unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", filepath.Dir(dir), err)
	}
	defer unix.Close(parent)
	return At(ctx, parent, filepath.Base(dir), dir)
}

// At deletes the entry name of the open directory parent, with all below it;
// shown is what errors call it.
func At(ctx context.Context, parent int, name, shown string) error {
	t := &tree{ctx: ctx}
	_, err := t.remove(parent, name, shown, 0)
	return errors.Join(append(t.errs, err)...)
}

type tree struct {
	ctx   context.Context
	top   *os.File // the first directory, to which deep ones are moved
	moved int
	errs  []error
}

// remove deletes one entry; it tells whether it is gone from where it was.
func (t *tree) remove(parent int, name, shown string, depth int) (gone bool, err error) {
	if err := t.ctx.Err(); err != nil {
		return false, err
	}
	err = unix.Unlinkat(parent, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return true, nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return false, &os.PathError{Op: "unlink", Path: shown, Err: err}
	}
	if depth >= maxDepth {
		return t.moveUp(parent, name, shown)
	}
	f, err2 := openDir(parent, name, shown)
	if errors.Is(err2, unix.ENOTDIR) {
		return false, &os.PathError{Op: "unlink", Path: shown, Err: err}
	}
	if err2 != nil {
		return false, err2
	}
	defer f.Close()
	if t.top == nil {
		t.top = f
	}
	if err := t.empty(f, shown, depth); err != nil {
		return false, err
	}
	if err := unix.Unlinkat(parent, name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		if len(t.errs) > 0 && errors.Is(err, unix.ENOTEMPTY) {
			return false, nil // why is told already
		}
		return false, &os.PathError{Op: "rmdir", Path: shown, Err: err}
	}
	return true, nil
}

// openDir opens a directory, but neither a link nor a mount.
func openDir(parent int, name, shown string) (*os.File, error) {
	fd, err := openat2.Open(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW,
		unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV)
	if errors.Is(err, unix.EXDEV) {
		return nil, fmt.Errorf("%s is a mount: unmount it first", shown)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: shown, Err: err}
	}
	return os.NewFile(uintptr(fd), shown), nil
}

// empty deletes all in the directory, pass by pass: a file system may skip
// entries in a pass that deletes, and what was moved up comes after it.
func (t *tree) empty(f *os.File, shown string, depth int) error {
	for {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		progress, moved := false, t.moved
		for {
			names, err := f.Readdirnames(maxNames)
			for _, n := range names {
				gone, err := t.remove(int(f.Fd()), n, filepath.Join(shown, n), depth+1)
				progress = progress || gone
				t.tell(err)
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return fmt.Errorf("read %s: %w", shown, err)
			}
			if err := t.ctx.Err(); err != nil {
				return err
			}
		}
		if !progress || len(t.errs) > 0 && (t.top != f || t.moved == moved) {
			return nil
		}
	}
}

// moveUp makes a directory that is too deep an entry of the first one.
func (t *tree) moveUp(parent int, name, shown string) (bool, error) {
	for {
		t.moved++
		err := unix.Renameat2(parent, name, int(t.top.Fd()), fmt.Sprintf(".deep-%d", t.moved), unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return false, &os.PathError{Op: "move up", Path: shown, Err: err}
		}
		return true, nil
	}
}

func (t *tree) tell(err error) {
	if err != nil && len(t.errs) < maxErrors {
		t.errs = append(t.errs, err)
	}
}
