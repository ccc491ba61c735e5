//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	runcC "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"

	"nodeagent/internal/shimapi"
)

// fifoWait is how long the init of a created container may take to the FIFO. It is
// on its last steps there when "runc create" returns, but on a node that crawls they
// take seconds; and a reader that goes away between its opening the FIFO and its
// writing kills it. Later runc is asked.
const fifoWait = 10 * time.Second

// startHere starts a created container without a process: all that "runc start"
// does is to read the byte that the waiting init writes into exec.fifo, and to
// remove the FIFO (opencontainers/runc start.go and Container.Exec, 1.1 to 1.5),
// at the price of one more exec of a large program. It returns nil where the
// container is not runc's or the init does not answer: then nothing has happened
// and runc itself must tell.
func startHere(cmd *exec.Cmd, wait time.Duration) chan runcC.Exit {
	fifo := execFIFO(cmd.Args)
	if fifo == "" {
		return nil
	}
	fd, err := unix.Open(fifo, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	if !released(fd, filepath.Dir(fifo), wait) {
		return nil
	}
	status := 0
	if err := os.Remove(fifo); err != nil && !errors.Is(err, fs.ErrNotExist) {
		status = 1 // runc tells created and running apart by it
	}
	done := make(chan runcC.Exit, 1)
	done <- runcC.Exit{Timestamp: time.Now(), Status: status}
	return done
}

// startedAnyway tells whether a "runc start" that failed has started the
// container: killed at its deadline it may have read the byte already, and then
// the container runs, whoever says that it was only created. The FIFO goes, by
// which runc too tells the two apart.
func startedAnyway(cmd *exec.Cmd) bool {
	fifo := execFIFO(cmd.Args)
	if fifo == "" || !initPassed(filepath.Dir(fifo)) {
		return false
	}
	err := os.Remove(fifo)
	return err == nil || errors.Is(err, fs.ErrNotExist)
}

// initPassed tells whether the container's first process, known by number and
// birth from runc's state, is the container's program by now. Until then it
// bears the name that runc gives its init.
func initPassed(dir string) bool {
	state, err := readState(dir)
	if err != nil {
		return false
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", state.Pid))
	if err != nil || string(comm) == "runc:[2:INIT]\n" {
		return false
	}
	born, err := shimapi.ProcessStartTime(state.Pid)
	return err == nil && born == state.Born
}

// execFIFO is where the init of the container waits that "runc --root <root> …
// start <id>" is to start; "" for every other command, and for a container whose
// state is not runc's: crun's FIFO, of the same name, is read by the init.
func execFIFO(args []string) string {
	n, root := len(args), slices.Index(args, "--root")
	if n < 5 || args[n-2] != "start" || root < 0 || root+1 >= n-2 {
		return ""
	}
	dir := filepath.Join(args[root+1], args[n-1])
	if _, err := os.Stat(filepath.Join(dir, "state.json")); err != nil {
		return ""
	}
	return filepath.Join(dir, "exec.fifo")
}

// released waits for the byte of the init of the container whose state is in dir,
// until the init ends or the time is over.
func released(fifo int, dir string, wait time.Duration) bool {
	init := -1 // poll passes it over
	if s, err := readState(dir); err == nil && s.Pid > 0 {
		fd, err := unix.PidfdOpen(s.Pid, 0)
		switch {
		case err == nil:
			init = fd
			defer unix.Close(fd)
		case errors.Is(err, unix.ESRCH):
			wait = 0
		}
	}
	for end := time.Now().Add(wait); ; {
		fds := []unix.PollFd{{Fd: int32(fifo), Events: unix.POLLIN}, {Fd: int32(init), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, int(max(0, time.Until(end)).Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		// A FIFO that its writer has closed without a byte reads as ended.
		n, err := unix.Read(fifo, make([]byte, 1))
		return err == nil && n == 1
	}
}
