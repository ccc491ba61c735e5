//go:build linux

package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	runcC "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"
)

// fifoWait is how long the init of a created container may take to the FIFO; it
// is on its last steps there when "runc create" returns. Later runc is asked.
const fifoWait = 500 * time.Millisecond

// startHere starts a created container without a process: all that "runc start"
// does is to read the byte that the waiting init writes into exec.fifo, and to
// remove the FIFO (opencontainers/runc start.go and Container.Exec, 1.1 to 1.5),
// at the price of one more exec of a large program. It returns nil where the
// container is not runc's or the init does not answer: then nothing has happened
// and runc itself must tell.
func startHere(cmd *exec.Cmd) chan runcC.Exit {
	fifo := execFIFO(cmd.Args)
	if fifo == "" {
		return nil
	}
	f, err := os.OpenFile(fifo, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	if !released(f) {
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

// released waits for the init's byte.
func released(fifo *os.File) bool {
	raw, err := fifo.SyscallConn()
	if err != nil || fifo.SetReadDeadline(time.Now().Add(fifoWait)) != nil {
		return false
	}
	var n int
	var b [1]byte
	err = raw.Read(func(fd uintptr) bool {
		// Before the init has opened it, a FIFO reads as ended.
		n, _ = unix.Read(int(fd), b[:])
		return n > 0
	})
	return err == nil && n > 0
}
