//go:build linux

package main

import (
	"runtime"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// setLog sends the shim's own messages to the FIFO that containerd reads. The
// FIFO is opened for reading too and never blocks: neither a dead nor a hung
// containerd may stop or kill a shim that wants to say something.
func setLog(debug bool) {
	_ = log.SetFormat(log.TextFormat)
	if debug {
		_ = log.SetLevel(log.DebugLevel.String())
	}
	fd, err := unix.Open("log", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return // stderr is what the start verb gave us
	}
	_ = unix.Dup3(fd, 2, 0) // where a panic goes
	_ = unix.Close(fd)
	log.L.Logger.SetOutput(lossyStderr{})
}

type lossyStderr struct{}

func (lossyStderr) Write(p []byte) (int, error) {
	_, _ = unix.Write(2, p)
	return len(p), nil
}

func dumpStacks() {
	buf := make([]byte, 256<<10)
	log.L.Infof("goroutines:\n%s", buf[:runtime.Stack(buf, true)])
}
