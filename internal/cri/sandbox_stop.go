package cri

import (
	"context"
	"errors"
	"fmt"
	"os"

	"nodeagent/internal/failpoint"
)

// Why a sandbox is not ready.
const (
	reasonIncomplete  = "Incomplete"  // half made
	reasonNetworkLost = "NetworkLost" // its namespaces were taken away
	reasonRebooted    = "Rebooted"    // made before the last boot
	reasonStopped     = "Stopped"
)

// StopPodSandbox releases network and namespaces. Its containers must have
// ended. The record stays. Idempotent.
func (n *Native) StopPodSandbox(ctx context.Context, id string) error {
	s, err := n.state.sandbox(id)
	if err != nil {
		return ignoreNotFound(err)
	}
	if err := s.lock.acquire(ctx); err != nil {
		return err
	}
	defer s.lock.release()
	return n.stopSandbox(ctx, s)
}

func (n *Native) stopSandbox(ctx context.Context, s *sandbox) error {
	var stopped bool
	n.state.edit(func() { stopped = s.stopped })
	if stopped {
		n.endIdleShim(ctx, s)
		return nil
	}
	n.state.edit(func() { s.stopping = true })
	if err := n.releaseSandbox(ctx, s); err != nil {
		return fmt.Errorf("stop sandbox: %w", err)
	}
	// No mark on the record: without its directory a sandbox is not ready after
	// a restart either, and stopping it again does nothing.
	n.state.edit(func() { s.stopped, s.reason = true, reasonStopped })
	n.endIdleShim(ctx, s)
	return nil
}

// releaseSandbox takes away everything but the record; the directory with the
// intent goes last.
func (n *Native) releaseSandbox(ctx context.Context, s *sandbox) error {
	if err := n.stopInit(ctx, s); err != nil {
		return err
	}
	if s.netns != "" && n.cfg.Network != nil {
		if err := n.teardownNetwork(ctx, s); err != nil {
			return err
		}
	}
	if err := failpoint.At(failpoint.CRISandboxUnpinBefore); err != nil {
		return err
	}
	if err := n.pinsOf(s).release(); err != nil {
		return fmt.Errorf("release namespaces: %w", err)
	}
	// Only after the unmounts succeeded: the tree holds plain files by now.
	if err := os.RemoveAll(n.nsDir(s.id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove sandbox directory: %w", err)
	}
	return failpoint.At(failpoint.CRISandboxUnpinAfter)
}

func (n *Native) teardownNetwork(ctx context.Context, s *sandbox) error {
	if err := failpoint.At(failpoint.CRINetworkTeardownBefore); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.CreateTimeout)
	defer cancel()
	if err := n.cfg.Network.Teardown(ctx, netRequest(s.id, s.netns, s.config)); err != nil {
		return fmt.Errorf("tear down network: %w", err)
	}
	return failpoint.At(failpoint.CRINetworkTeardownAfter)
}
