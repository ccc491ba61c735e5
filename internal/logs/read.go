package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// RecordMax bounds the length of a record that a Reader takes; what is longer
// was not written by us, and its surplus is skipped.
const RecordMax = 64 << 10

// ReadOptions say what to read and how to show it.
type ReadOptions struct {
	Follow     bool
	Since      time.Time // records before it are skipped
	Tail       int       // lines to show at most, counted from the end; negative: all
	Limit      int64     // bytes to show at most; 0: no limit
	Timestamps bool      // each line begins with its time, nine digits of a second
	Stream     Name      // only this stream; empty: both
	// Ended is done when the container writes no more: a following read then
	// goes on to the end of the log and returns. nil: follow until ctx is done.
	Ended context.Context
	// Opened is called once the log is found and, with Follow, watched, before
	// anything is shown; it may be nil.
	Opened func()
}

// Read copies the lines of a log, its rotated files first, to stdout and
// stderr. Following is by inotify and crosses rotations; files that are dropped
// before they could be read are lost to it. It returns nil at the end of the
// log, ctx's error when it is told to stop, and an error for which
// errors.Is(err, os.ErrNotExist) holds where there is no log.
//
// The file and the last two directories of path are not followed as links:
// they belong to a pod.
func Read(ctx context.Context, path string, o ReadOptions, stdout, stderr io.Writer) error {
	path = filepath.Clean(path)
	r := &reader{
		opts: o, name: filepath.Base(path), dirFD: -1,
		out: printer{opts: o, stdout: stdout, stderr: stderr, left: o.Limit},
		buf: bufio.NewReaderSize(nil, RecordMax),
	}
	defer r.close()
	var err error
	if r.dirFD, err = openDirToRead(filepath.Dir(path)); err != nil {
		return fmt.Errorf("open log directory: %w", err)
	}
	if o.Follow { // before the first read: nothing may slip in between
		if err := r.watch(); err != nil {
			return err
		}
	}
	if err := r.begin(); err != nil {
		return err
	}
	if o.Opened != nil {
		o.Opened()
	}
	err = r.copy(ctx)
	if errors.Is(err, errLimit) {
		return nil
	}
	return err
}

type reader struct {
	opts   ReadOptions
	name   string
	dirFD  int
	file   *os.File
	inode  uint64
	buf    *bufio.Reader
	part   []byte   // a record whose end is not yet written
	later  [2]bool  // walking backwards: a later record of stdout, of stderr, was met
	events *os.File // inotify
	out    printer
}

func (r *reader) close() {
	if r.file != nil {
		_ = r.file.Close()
	}
	if r.events != nil {
		_ = r.events.Close()
	}
	if r.dirFD >= 0 {
		_ = unix.Close(r.dirFD)
	}
}

func openDirToRead(path string) (int, error) {
	base, names := path, []string(nil)
	for range 2 {
		if base == "/" || base == "." {
			break
		}
		names = append([]string{filepath.Base(base)}, names...)
		base = filepath.Dir(base)
	}
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	fd, err := unix.Open(base, flags, 0)
	for _, n := range names {
		if err != nil {
			break
		}
		parent := fd
		fd, err = unix.Openat(parent, n, flags|unix.O_NOFOLLOW, 0)
		_ = unix.Close(parent)
	}
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// open opens a file of the log for reading; neither a link nor a FIFO.
func (r *reader) open(name string) (*os.File, uint64, error) {
	fd, err := unix.Openat(r.dirFD, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("open log file %s: %w", name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		_ = unix.Close(fd)
		return nil, 0, fmt.Errorf("open log file %s: it is no regular file", name)
	}
	return os.NewFile(uintptr(fd), name), st.Ino, nil
}

// names lists the files of the log, oldest first, the current one last.
func (r *reader) names() []string { return append(rotatedNames(r.dirFD, r.name), r.name) }

// use makes file the one that is read, from offset on.
func (r *reader) use(file *os.File, inode uint64, offset int64) error {
	if r.file != nil {
		_ = r.file.Close()
	}
	r.file, r.inode, r.part = file, inode, r.part[:0]
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		return fmt.Errorf("seek in log: %w", err)
	}
	r.buf.Reset(file)
	return nil
}

// copy shows records until the end of the log.
func (r *reader) copy(ctx context.Context) error {
	for {
		if err := r.drain(ctx); err != nil {
			return err
		}
		// The end of this file; it is final if a newer one exists, since the
		// writer fills a file before it renames it.
		more, err := r.next(ctx)
		if err != nil {
			return err
		}
		if !more {
			if !r.opts.Follow || r.ended() {
				return r.last(ctx)
			}
			if err := r.wait(ctx); err != nil {
				return err
			}
		}
	}
}

// last reads what was written between the end of the file and the moment at
// which the container was found ended.
func (r *reader) last(ctx context.Context) error {
	if !r.opts.Follow {
		return r.out.flush()
	}
	for {
		if err := r.drain(ctx); err != nil {
			return err
		}
		more, err := r.next(ctx)
		if err != nil || !more {
			return errors.Join(err, r.out.flush())
		}
	}
}

func (r *reader) ended() bool { return r.opts.Ended != nil && r.opts.Ended.Err() != nil }

// drain shows the complete records of the file up to its present end.
func (r *reader) drain(ctx context.Context) error {
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		line, err := r.buf.ReadSlice('\n')
		switch {
		case err == nil && len(r.part) == 0:
			err = r.out.line(line)
		case err == nil:
			r.part = append(r.part, line...)
			err = r.out.line(r.part)
			r.part = r.part[:0]
		case errors.Is(err, bufio.ErrBufferFull):
			err = r.skipLong(line)
		case errors.Is(err, io.EOF):
			if len(r.part)+len(line) <= RecordMax {
				r.part = append(r.part, line...)
			}
			return r.out.flush()
		default:
			return fmt.Errorf("read log: %w", err)
		}
		if err != nil {
			return err
		}
	}
}

// skipLong passes over a record that is no record of ours.
func (r *reader) skipLong(begin []byte) error {
	r.part = r.part[:0]
	for {
		if i := bytes.IndexByte(begin, '\n'); i >= 0 {
			return nil
		}
		next, err := r.buf.ReadSlice('\n')
		switch {
		case err == nil:
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
			begin = next
		case errors.Is(err, io.EOF):
			return nil
		default:
			return fmt.Errorf("read log: %w", err)
		}
	}
}

// nextTries bounds the attempts to catch the file after ours while the writer
// rotates under us; the next event brings the next attempts.
const nextTries = 100

// next goes on to the file after the one that was read to its end. It knows
// its own place by inode, which holds while the file is open, also when it was
// renamed, and is gone from the list when it was dropped.
func (r *reader) next(ctx context.Context) (bool, error) {
	for range nextTries {
		name, ok := r.successor()
		if !ok {
			continue
		}
		if name == "" {
			return false, nil
		}
		file, inode, err := r.open(name)
		if errors.Is(err, os.ErrNotExist) {
			if name == r.name {
				return false, nil // between two names, or removed
			}
			continue // dropped
		}
		if err != nil {
			return false, err
		}
		// A list made while the writer renames may lack a name, and the current
		// name may have passed on since: only twice the same answer counts.
		if again, ok := r.successor(); !ok || again != name || inode == r.inode {
			_ = file.Close()
			continue
		}
		if err := r.drain(ctx); err != nil { // it may have grown until it was renamed
			_ = file.Close()
			return false, err
		}
		return true, r.use(file, inode, 0)
	}
	return false, nil
}

// successor names the file after the one in hand, "" if that is the current
// one. Not ok: it was renamed between list and look.
func (r *reader) successor() (name string, ok bool) {
	names := r.names()
	var st unix.Stat_t
	for i, n := range slices.Backward(names) {
		if unix.Fstatat(r.dirFD, n, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Ino == r.inode {
			if i == len(names)-1 {
				return "", true
			}
			return names[i+1], true
		}
	}
	if err := unix.Fstat(int(r.file.Fd()), &st); err == nil && st.Nlink > 0 {
		return "", false
	}
	return names[0], true // ours was dropped, as the oldest: all others are newer
}
