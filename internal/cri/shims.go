package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nodeagent/internal/failpoint"
	"nodeagent/internal/pod"
	"nodeagent/internal/shimapi"
)

// endShim tells the shim of a sandbox to end; it stays until it is told. A
// sandbox that never had a task has none.
// Unless forced it ends only if it has nothing left to care for.
func (n *Native) endShim(ctx context.Context, sandbox string, force bool) error {
	_, err := shimapi.ReadShim(n.cfg.RunDir, sandbox)
	if errors.Is(err, os.ErrNotExist) && !n.hasShimSocket(sandbox) {
		return nil
	}
	if err := failpoint.At(failpoint.CRIShimExitBefore); err != nil {
		return err
	}
	ctx, cancel := n.call(ctx)
	defer cancel()
	if err := n.askShim(ctx, sandbox, force); err != nil {
		if !force {
			return err
		}
		// It does not answer, or is gone: by its process, then.
		if err := n.killShim(sandbox); err != nil {
			return err
		}
	}
	if err := shimapi.RemoveShim(n.cfg.RunDir, sandbox); err != nil {
		return err
	}
	return failpoint.At(failpoint.CRIShimExitAfter)
}

// endIdleShim ends the shim of a stopped sandbox as soon as all that it knew is on
// containers' records: a pod that has ended stays as records, not as a process. It is
// asked for at the sandbox's stop and after each end that is settled, whichever comes
// last. A failure costs memory until the sandbox goes, and nothing else.
func (n *Native) endIdleShim(ctx context.Context, s *sandbox) {
	idle := true
	n.state.edit(func() {
		idle = s.stopped
		for _, c := range n.state.containers {
			idle = idle && (c.sandbox != s.id || c.info.State == pod.ContainerExited && c.durable && !c.tasked && !c.removing)
		}
		s.shimUp = s.shimUp && !idle
	})
	if !idle {
		return
	}
	if err := n.endShim(ctx, s.id, false); err != nil {
		n.log.Warn("leave the shim of a stopped sandbox running", "sandbox", s.id, "podUID", s.uid, "err", err)
	}
}

// hasShimSocket tells whether a control socket is there, also of a shim whose
// record was lost.
func (n *Native) hasShimSocket(sandbox string) bool {
	_, err := os.Lstat(filepath.Join(shimapi.ShimDir(n.cfg.RunDir), sandbox+".sock"))
	return err == nil
}

func (n *Native) askShim(ctx context.Context, sandbox string, force bool) error {
	client, err := shimapi.Dial(n.cfg.RunDir, sandbox)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.Exit(ctx, force)
}

func (n *Native) killShim(sandbox string) error {
	r, err := shimapi.ReadShim(n.cfg.RunDir, sandbox)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := killProcess(r); err != nil {
		return err
	}
	// A shim that was killed, by whomever, had no time to remove the socket that
	// containerd knows it by.
	if err := os.Remove(r.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the socket of a killed shim: %w", err)
	}
	return nil
}

// killProcess kills a shim that still lives.
func killProcess(r shimapi.ShimRecord) error {
	fd, err := unix.PidfdOpen(r.Pid, 0)
	if err != nil {
		return nil // gone
	}
	defer unix.Close(fd)
	if !r.Alive() { // asked after the pidfd was opened: the number is not used anew
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill shim: %w", err)
	}
	return nil
}
