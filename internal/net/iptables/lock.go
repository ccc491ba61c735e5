package iptables

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lockNews tells who let go of the lock that the legacy programs hold while they
// change a table. The kernel tells nobody of the change itself, but by fanotify who
// closed a file.
type lockNews struct {
	fd   int
	path string
}

// lockPath is where the programs have their lock.
func lockPath() string {
	if path := os.Getenv("XTABLES_LOCKFILE"); path != "" {
		return path
	}
	return "/run/xtables.lock"
}

// listenToLock needs CAP_SYS_ADMIN, and a kernel with fanotify.
func listenToLock() (*lockNews, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("listen to the xtables lock: %w", err)
	}
	l := &lockNews{fd, lockPath()}
	if err := l.follow(); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// follow listens to the file that is there now, which is made as the programs make
// it. It costs nothing to do so again.
func (l *lockNews) follow() error {
	f, err := os.OpenFile(l.path, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("listen to the xtables lock: %w", err)
	}
	defer f.Close()
	if err := unix.FanotifyMark(l.fd, unix.FAN_MARK_ADD, unix.FAN_CLOSE, int(f.Fd()), ""); err != nil {
		return fmt.Errorf("listen to the xtables lock: %w", err)
	}
	return nil
}

func (l *lockNews) close() {
	if l != nil {
		unix.Close(l.fd)
	}
}

// others takes what there is to hear, and tells whether anybody but our own programs
// had the lock, or may have.
func (l *lockNews) others(ours func(pid int) bool) (some bool) {
	if l == nil {
		return false
	}
	var b [170 * unix.FAN_EVENT_METADATA_LEN]byte
	for {
		n, err := unix.Read(l.fd, b[:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return some
		case err != nil || n <= 0:
			return true
		}
		for at := 0; at+unix.FAN_EVENT_METADATA_LEN <= n; {
			e := (*unix.FanotifyEventMetadata)(unsafe.Pointer(&b[at]))
			if e.Fd >= 0 {
				unix.Close(int(e.Fd)) // of the file that was closed: nobody is told of this one
			}
			some = some || e.Mask&unix.FAN_Q_OVERFLOW != 0 || !ours(int(e.Pid))
			at += max(int(e.Event_len), unix.FAN_EVENT_METADATA_LEN)
		}
	}
}
