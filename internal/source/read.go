package source

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// stamp tells one content of one file from another as well as a file system can
// without reading it.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

func stampOf(st *unix.Stat_t) stamp {
	return stamp{dev: uint64(st.Dev), ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
}

// quietFor is how long a file must not have changed before it is believed where
// the file system cannot say whether somebody is writing to it.
const quietFor = 2 * time.Second

// content is a file as it was when nobody wrote to it.
type content struct {
	data  []byte
	mode  uint32 // permissions
	stamp stamp
	at    time.Time // when it was read
}

// errBusy says that a file is being written.
var errBusy = errors.New("file is being written")

// readQuiet reads a regular file while nobody has it open for writing, so that
// what is half written is never seen, not even where it happens to parse. The
// kernel is asked (a read lease is granted only on a file without writers, and
// is given back at once) before and after; in between the file must not change.
// Where there are no leases (network file systems, files of others), a file is
// believed if finished is set, because its writer was seen to close or move it,
// or else once it has been left alone for a while.
//
// It never blocks on a pipe or device, and it reads at most maxFileBytes.
func readQuiet(path string, finished bool) (content, error) {
	return readAsking(path, finished, hasWriters)
}

// readAsking is readQuiet with the question to the kernel as a parameter.
func readAsking(path string, finished bool, hasWriters func(*os.File) (written, known bool)) (content, error) {
	// The type is known before the file is opened: opening some devices acts.
	if err := regular(path); err != nil {
		return content{}, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return content{}, fmt.Errorf("open file: %w", cause(err))
	}
	defer f.Close()
	var before, after unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &before); err != nil {
		return content{}, fmt.Errorf("look at file: %w", err)
	}
	if before.Mode&unix.S_IFMT != unix.S_IFREG {
		return content{}, notRegular(before.Mode)
	}
	if before.Size > maxFileBytes {
		return content{}, fmt.Errorf("file is %d bytes long, the limit is %d", before.Size, maxFileBytes)
	}
	now := time.Now()
	written, known := hasWriters(f)
	if written || !known && !finished && now.Sub(time.Unix(before.Mtim.Unix())).Abs() < quietFor {
		return content{}, errBusy
	}
	data := make([]byte, 0, before.Size+512)
	data, err = readAtMost(f, data, maxFileBytes)
	if err != nil {
		return content{}, err
	}
	if err := unix.Fstat(int(f.Fd()), &after); err != nil {
		return content{}, fmt.Errorf("look at file: %w", err)
	}
	if written, _ := hasWriters(f); written || stampOf(&before) != stampOf(&after) {
		return content{}, errBusy
	}
	return content{data: data, mode: before.Mode & 0o7777, stamp: stampOf(&before), at: now}, nil
}

// regular says why path is no regular file, links followed.
func regular(path string) error {
	var st unix.Stat_t
	switch err := unix.Stat(path, &st); {
	case err == unix.ENOENT:
		return fmt.Errorf("link points to nothing: %w", err)
	case err == unix.ELOOP:
		return fmt.Errorf("link points to itself: %w", err)
	case err != nil:
		return fmt.Errorf("look at file: %w", err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return notRegular(st.Mode)
	}
	return nil
}

// typeError says that a name stands for something that can hold no manifest.
type typeError string

func (e typeError) Error() string { return "not a regular file but " + string(e) }

func notRegular(mode uint32) error {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return typeError("a directory")
	case unix.S_IFIFO:
		return typeError("a named pipe")
	case unix.S_IFSOCK:
		return typeError("a socket")
	default:
		return typeError("a device")
	}
}

// hasWriters asks the kernel whether anybody has the file open for writing;
// known is false where it cannot tell. While it asks, for a few microseconds,
// somebody who opens the file for writing waits.
func hasWriters(f *os.File) (written, known bool) {
	switch _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err {
	case nil:
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
		return false, err == nil
	case unix.EAGAIN:
		return true, true
	default:
		return false, false
	}
}

func readAtMost(r io.Reader, buf []byte, limit int) ([]byte, error) {
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case len(buf) > limit:
			return nil, fmt.Errorf("file is longer than the limit of %d bytes", limit)
		case err == io.EOF:
			return buf, nil
		case err != nil:
			return nil, fmt.Errorf("read file: %w", cause(err))
		}
	}
}

// cause is an error without the path that the os package puts before it: a
// problem names its file itself.
func cause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
