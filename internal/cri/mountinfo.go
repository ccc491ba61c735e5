package cri

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// mountWatch hears of every change of the mount table of this namespace: the
// kernel tells it as an urgent condition of /proc/self/mountinfo (proc(5)), which
// the runtime's poller does not ask for. So an epoll instance does, and that one
// is what the poller waits for: no thread is held.
type mountWatch struct {
	table *os.File
	epoll *os.File
	raw   syscall.RawConn
	once  sync.Once
}

func newMountWatch() (_ *mountWatch, err error) {
	table, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	w := &mountWatch{table: table}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make epoll instance: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // or os.NewFile takes it for a plain file
		unix.Close(fd)
		return nil, err
	}
	w.epoll = os.NewFile(uintptr(fd), "epoll")
	if w.raw, err = w.epoll.SyscallConn(); err != nil {
		return nil, err
	}
	conn, err := table.SyscallConn()
	if err != nil {
		return nil, err
	}
	var added error
	err = conn.Control(func(mountinfo uintptr) {
		added = unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, int(mountinfo), &unix.EpollEvent{Events: unix.EPOLLPRI | unix.EPOLLET})
	})
	if err != nil || added != nil {
		return nil, fmt.Errorf("watch /proc/self/mountinfo: %w", errors.Join(err, added))
	}
	return w, nil
}

// run tells of changes, first at once, until the watch is closed, which is an
// error. It may tell of one that was none.
//
// It is one Read that never ends: a new one would forget what came between the
// two. What epoll_wait says is no answer, because the kernel tells each opening of
// the file only once, and the outer poller has asked by then.
func (w *mountWatch) run(changed func()) error {
	return w.raw.Read(func(fd uintptr) bool {
		var events [1]unix.EpollEvent
		_, _ = unix.EpollWait(int(fd), events[:], 0)
		changed()
		return false
	})
}

func (w *mountWatch) close() {
	w.once.Do(func() {
		if w.epoll != nil {
			_ = w.epoll.Close()
		}
		_ = w.table.Close()
	})
}
