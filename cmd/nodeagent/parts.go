package main

import (
	"context"
	"errors"
	"fmt"
)

// part is something that runs as long as the daemon does.
type part struct {
	name string
	run  func(context.Context) error
}

// prepare makes what pods need of the node before anything runs.
func (d *daemon) prepare(ctx context.Context) error {
	if d.cfg.Agent.ProxyOnly {
		return nil
	}
	if err := d.volumes.Root(); err != nil {
		d.log.Warn("go on without a root directory as it should be", "err", err)
	}
	if err := d.tree.EnsureNode(ctx, d.nodeResources()); err != nil {
		return fmt.Errorf("make the cgroup of all pods: %w", err)
	}
	return nil
}

// run runs every part until ctx ends, or until one fails, which ends the others.
func (d *daemon) run(ctx context.Context) error {
	if err := d.prepare(ctx); err != nil {
		return err
	}
	for _, listen := range d.listens {
		if err := listen(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan error, len(d.parts))
	for _, p := range d.parts {
		go func() {
			err := p.run(ctx)
			if err != nil && ctx.Err() == nil {
				err = fmt.Errorf("%s: %w", p.name, err)
				cancel(err)
			}
			ended <- err
		}()
	}
	for range d.parts {
		<-ended
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
