//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"nodeagent/internal/shimapi"
)

// endUnstarted kills the process of an exec whose start failed after the process
// had begun to run. containerd's task service looks up the pid last, after it has
// opened the client's FIFOs, for which it waits: of a client that died meanwhile
// it would keep a process that no request can name.
func (s *service) endUnstarted(ctx context.Context, r *taskAPI.StartRequest) {
	state, err := s.TTRPCTaskService.State(context.WithoutCancel(ctx), &taskAPI.StateRequest{ID: r.ID, ExecID: r.ExecID})
	if err != nil || state.Status != task.Status_CREATED {
		return // gone, or it runs: a second start is refused and harms nobody
	}
	raw, err := os.ReadFile(filepath.Join(state.Bundle, r.ExecID+".pid"))
	if err != nil {
		return // runc started nothing
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err == nil {
		err = killChild(pid)
	}
	if err != nil {
		log.G(ctx).WithError(err).WithField("exec", r.ExecID).Warn("kill the process of a failed start")
	}
}

// killChild kills a process if it is this one's child, as everything is that runc
// left behind: a pid that was given to somebody else meanwhile is none.
func killChild(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open pidfd of %d: %w", pid, err)
	}
	defer unix.Close(fd)
	parent, err := shimapi.ProcessParent(pid)
	if err != nil || parent != os.Getpid() {
		return nil // gone, or nobody of ours
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill %d: %w", pid, err)
	}
	return nil
}
