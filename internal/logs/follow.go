package logs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// watch begins to listen for changes in the log's directory.
func (r *reader) watch() error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch log: %w", err)
	}
	r.events = os.NewFile(uintptr(fd), "inotify")
	// By descriptor: the path may lead elsewhere by now. The parent is watched
	// too, since a directory that is held open does not tell of its own removal.
	dir := fmt.Sprintf("/proc/self/fd/%d", r.dirFD)
	const changed = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE
	if _, err := unix.InotifyAddWatch(fd, dir, changed); err != nil {
		return fmt.Errorf("watch log: %w", err)
	}
	if _, err := unix.InotifyAddWatch(fd, dir+"/..", unix.IN_DELETE); err != nil {
		return fmt.Errorf("watch log: %w", err)
	}
	return nil
}

// wait returns when something has changed, the container has ended, or the
// directory is gone (an error); ctx's error when it is told to stop.
func (r *reader) wait(ctx context.Context) error {
	wake := func() { _ = r.events.SetReadDeadline(time.Unix(1, 0)) }
	defer context.AfterFunc(ctx, wake)()
	if r.opts.Ended != nil {
		defer context.AfterFunc(r.opts.Ended, wake)()
	}
	var buf [4096]byte
	_, err := r.events.Read(buf[:])
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil // the container has ended
	case err != nil:
		return fmt.Errorf("watch log: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(r.dirFD, &st); err != nil || st.Nlink == 0 {
		return fmt.Errorf("watch log: its directory was removed: %w", os.ErrNotExist)
	}
	return nil
}
