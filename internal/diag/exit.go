package diag

import (
	"bytes"
	"context"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/shimapi"
)

// recordGrace is how long the exit record may take after the process has ended:
// the shim first writes what is left of the output.
const recordGrace = 3 * time.Second

// untilExit returns a context that ends when the container's run has ended and
// its output is complete; at once if it does not run. The shim writes the exit
// record after the last line, so its appearance is what is waited for, however
// soon the daemon takes it away again; a process that is gone without a record
// ends it too. stop releases everything.
func untilExit(ctx context.Context, runDir string, c *Container) (ended context.Context, stop func()) {
	ended, cancel := context.WithCancel(ctx)
	records, process := openExit(runDir, c)
	if records == nil {
		cancel()
		return ended, cancel
	}
	var both sync.WaitGroup // they end with ended, which wakes their waits
	both.Go(func() {
		waitReadable(ended, process)
		if ended.Err() == nil {
			_ = records.SetReadDeadline(time.Now().Add(recordGrace))
		}
	})
	both.Go(func() {
		defer cancel()
		waitRecord(ended, records, c.ID)
	})
	return ended, func() {
		cancel()
		both.Wait()
		_ = records.Close()
		_ = process.Close()
	}
}

// openExit opens what tells of the end of a container: its exit record's
// directory, and its process. They are nil when it has ended.
func openExit(runDir string, c *Container) (records, process *os.File) {
	if !c.Running() || c.Pid == 0 {
		return nil, nil
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, nil
	}
	records = os.NewFile(uintptr(fd), "inotify")
	// Without the directory there is the process still.
	_, _ = unix.InotifyAddWatch(fd, shimapi.ExitDir(runDir), unix.IN_MOVED_TO)
	if _, err := shimapi.ReadExit(runDir, c.ID); err == nil {
		_ = records.Close()
		return nil, nil
	}
	pidfd, err := unix.PidfdOpen(int(c.Pid), unix.PIDFD_NONBLOCK)
	if err != nil { // it has ended meanwhile
		_ = records.Close()
		return nil, nil
	}
	return records, os.NewFile(uintptr(pidfd), "pidfd")
}

// waitReadable waits for a descriptor that the poller knows, or ctx.
func waitReadable(ctx context.Context, f *os.File) {
	defer context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })()
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		for err == unix.EINTR { // which the kernel never takes up again by itself
			n, err = unix.Poll(p, 0)
		}
		return err != nil || n > 0
	})
}

// waitRecord waits for the container's exit record, the deadline of records, or
// ctx.
func waitRecord(ctx context.Context, records *os.File, id string) {
	defer context.AfterFunc(ctx, func() { _ = records.SetReadDeadline(time.Unix(1, 0)) })()
	var buf [4096]byte
	for {
		n, err := records.Read(buf[:])
		if err != nil || bytes.Contains(buf[:n], []byte(id)) {
			return
		}
	}
}
