//go:build linux

package main

import (
	"os"
	"os/exec"
	"slices"
	"sync"

	runcC "github.com/containerd/go-runc"
)

// stdio is what a container's init gets as its descriptors 0, 1 and 2; a nil
// file is /dev/null.
type stdio struct{ in, out, err *os.File }

// stdioMonitor starts runc for the task service. To "runc create" of a
// container of ours it gives our own pipes: so we read what the container
// writes from the pipe that it writes to, without the copy through a FIFO (two
// more passes over each byte, and two goroutines a stream) of the task service.
// And what "runc start" and "runc delete" do it does itself where it can.
type stdioMonitor struct {
	runcC.ProcessMonitor
	mu      sync.Mutex
	pending map[string]stdio // by container id
}

// expect announces the creation of a container; forget takes it back.
func (m *stdioMonitor) expect(id string, s stdio) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pending[id] = s
}

func (m *stdioMonitor) forget(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pending, id)
}

// doneHere does what cmd would, where that takes no process; nil: it does take one.
func doneHere(cmd *exec.Cmd) chan runcC.Exit {
	if done := startHere(cmd, fifoWait); done != nil {
		return done
	}
	return deleteHere(cmd)
}

// Start runs cmd without locking a thread.
func (m *stdioMonitor) Start(cmd *exec.Cmd) (chan runcC.Exit, error) {
	if done := doneHere(cmd); done != nil {
		return done, nil
	}
	m.connect(cmd)
	return m.ProcessMonitor.Start(cmd)
}

// StartLocked runs cmd from a locked thread, which its death signal needs.
func (m *stdioMonitor) StartLocked(cmd *exec.Cmd) (chan runcC.Exit, error) {
	if done := doneHere(cmd); done != nil {
		return done, nil
	}
	m.connect(cmd)
	return m.ProcessMonitor.StartLocked(cmd)
}

// Wait returns the status of a command that Start or StartLocked began.
func (m *stdioMonitor) Wait(cmd *exec.Cmd, exits chan runcC.Exit) (int, error) {
	if cmd.Process == nil { // done here
		return (<-exits).Status, nil
	}
	status, err := m.ProcessMonitor.Wait(cmd, exits)
	if status != 0 && startedAnyway(cmd) {
		return 0, err
	}
	return status, err
}

// connect knows the command by go-runc's form of it: "runc <globals> create
// <options> <id>".
func (m *stdioMonitor) connect(cmd *exec.Cmd) {
	if len(cmd.Args) == 0 || !slices.Contains(cmd.Args, "create") {
		return
	}
	m.mu.Lock()
	s, ok := m.pending[cmd.Args[len(cmd.Args)-1]]
	m.mu.Unlock()
	if !ok {
		return
	}
	// Assigned one by one: a nil *os.File in an interface is not nil.
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, nil, nil
	if s.in != nil {
		cmd.Stdin = s.in
	}
	if s.out != nil {
		cmd.Stdout = s.out
	}
	if s.err != nil {
		cmd.Stderr = s.err
	}
}
