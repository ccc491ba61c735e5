package cgroups

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// awaitFile blocks until the file of fd has one of the poll events, or ctx is
// done. It holds a thread: the runtime's poller knows no POLLPRI.
func awaitFile(ctx context.Context, fd int, events int16) error {
	cancel, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("make an event descriptor: %w", err)
	}
	defer unix.Close(cancel)
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_, _ = unix.Write(cancel, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	defer func() {
		if !stop() {
			<-woken // it must not write to a number that is somebody else's by then
		}
	}()
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}, {Fd: int32(cancel), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("poll: %w", err)
		case fds[0].Revents != 0:
			return nil
		}
		return context.Cause(ctx)
	}
}
