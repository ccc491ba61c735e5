package logs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"nodeagent/internal/mkdir"
)

// file is the current log file and the directory that it lies in.
type file struct {
	dirFD, fd int
	size      int64
	torn      bool // the last record has no newline
}

var noFile = file{dirFD: -1, fd: -1}

func (f *file) close() error {
	var errs []error
	for _, fd := range []int{f.fd, f.dirFD} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	*f = noFile
	return errors.Join(errs...)
}

const (
	fileMode = 0o640 // as containerd's CRI plugin makes them
	dirMode  = 0o755 // as kubelet makes them
)

// open opens directory and file where they are not open.
func (w *Writer) open() error {
	if w.closed {
		return os.ErrClosed
	}
	if w.file.fd >= 0 {
		return nil
	}
	if w.file.dirFD < 0 {
		fd, err := openDir(w.dir)
		if err != nil {
			return fmt.Errorf("open log directory: %w", err)
		}
		w.file.dirFD = fd
		w.rotated = rotatedNames(fd, w.name)
	}
	if err := w.file.openAt(w.name); err != nil {
		return fmt.Errorf("open log file: %w", err)
	}
	w.checked = w.now
	return nil
}

// openDir opens a log directory and makes what is missing. The last two parts
// of the path belong to a pod and its container: links there are refused, so
// that a pod which may write below the log root cannot lead us elsewhere.
func openDir(path string) (int, error) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	own := min(2, len(parts))
	base := "/" + filepath.Join(parts[:len(parts)-own]...)
	if err := mkdir.All(base, dirMode); err != nil {
		return -1, err
	}
	fd, err := unix.Open(base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for _, part := range parts[len(parts)-own:] {
		next, err := openDirAt(fd, part)
		_ = unix.Close(fd)
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

func openDirAt(dirFD int, name string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dirFD, name, flags, 0)
	if errors.Is(err, unix.ENOENT) {
		if err := mkdir.At(dirFD, name, dirMode); err != nil && !errors.Is(err, unix.EEXIST) {
			return -1, err
		}
		fd, err = unix.Openat(dirFD, name, flags, 0)
	}
	return fd, err
}

// openAt opens the file for appending. Anything else of that name (a link, a
// FIFO, a second name of another file) is removed and a file made.
func (f *file) openAt(name string) error {
	const flags = unix.O_RDWR | unix.O_APPEND | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	for try := 0; ; try++ {
		fd, err := unix.Openat(f.dirFD, name, flags, fileMode)
		var st unix.Stat_t
		if err == nil {
			if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1 {
				f.fd, f.size, f.torn = fd, st.Size, endsTorn(fd, st.Size)
				return nil
			}
			_ = unix.Close(fd)
		}
		if try > 0 || !(err == nil || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO)) {
			if err == nil {
				err = errors.New("something else than a regular file has its name")
			}
			return err
		}
		if err := unix.Unlinkat(f.dirFD, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
}

// endsTorn tells whether an earlier writer died within a record.
func endsTorn(fd int, size int64) bool {
	if size == 0 {
		return false
	}
	var last [1]byte
	n, err := unix.Pread(fd, last[:], size-1)
	return err == nil && n == 1 && last[0] != '\n'
}

// check compares the open file with its name, now and then: somebody may have
// removed the directory, moved the file away, or cut it.
func (w *Writer) check() {
	w.checked = w.now
	if w.file.fd < 0 {
		return
	}
	var named, open unix.Stat_t
	err := unix.Fstatat(w.file.dirFD, w.name, &named, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil {
		err = unix.Fstat(w.file.fd, &open)
	}
	if err != nil || named.Ino != open.Ino || named.Dev != open.Dev {
		_ = w.file.close() // the next write makes them anew
		return
	}
	w.file.size = open.Size
}
