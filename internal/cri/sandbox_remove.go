package cri

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"nodeagent/internal/failpoint"
)

// RemovePodSandbox ends the sandbox's shim and deletes its record, the last
// trace. Its containers must have been removed; a sandbox that was not stopped
// is stopped first. Idempotent.
func (n *Native) RemovePodSandbox(ctx context.Context, id string) error {
	s, err := n.state.sandbox(id)
	if err != nil {
		return ignoreNotFound(err)
	}
	if err := s.lock.acquire(ctx); err != nil {
		return err
	}
	defer s.lock.release()
	if held := n.containersOf(s); held > 0 {
		return fmt.Errorf("remove sandbox %s: it still has %d containers", id, held)
	}
	if err := n.waitCommitted(ctx, s); err != nil && ctx.Err() != nil {
		return err
	}
	if err := n.stopSandbox(ctx, s); err != nil {
		return err
	}
	var g errgroup.Group // the failure of one must not cut the other short
	g.Go(func() error { return n.endShim(ctx, s.id, true) })
	g.Go(func() error {
		return n.deleteRecord(ctx, s.id, failpoint.CRISandboxDeleteBefore, failpoint.CRISandboxDeleteAfter)
	})
	if err := g.Wait(); err != nil {
		return fmt.Errorf("remove sandbox: %w", err)
	}
	n.state.removeSandbox(s)
	return nil
}

func (n *Native) containersOf(s *sandbox) (held int) {
	n.state.edit(func() {
		for _, c := range n.state.containers {
			if c.sandbox == s.id && c.kind == kindContainer {
				held++
			}
		}
	})
	return held
}

// waitCommitted waits until the record is written, and returns why it is not.
func (n *Native) waitCommitted(ctx context.Context, s *sandbox) error {
	select {
	case <-s.committed:
		return s.commitErr
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (n *Native) deleteRecord(ctx context.Context, id string, before, after failpoint.Name) error {
	if err := failpoint.At(before); err != nil {
		return err
	}
	ctx, cancel := n.call(ctx)
	defer cancel()
	if err := ignoreNotFound(n.client.ContainerService().Delete(ctx, id)); err != nil {
		return fmt.Errorf("delete record: %w", err)
	}
	return failpoint.At(after)
}
