package cluster

import (
	"context"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nodeagent/test/bed"
)

// Component is one program of the cluster. After a Kill it can be started again
// with what it had.
type Component struct {
	*bed.Process
	Name string

	c     *Cluster
	argv  []string
	ready func(context.Context, *Component) error
}

// Start starts the program and waits until it is ready.
func (p *Component) Start(ctx context.Context) error {
	if err := p.launch(); err != nil {
		return err
	}
	return p.waitReady(ctx)
}

func (p *Component) launch() error {
	process, err := p.c.bed.Spawn(p.Name, p.Log(), nil, p.argv...)
	if err != nil {
		return err
	}
	p.Process = process
	return nil
}

func (p *Component) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	return p.ready(ctx, p)
}

// Restart kills the program if it lives, and starts it again.
func (p *Component) Restart(ctx context.Context) error {
	if err := p.Kill(); err != nil {
		return err
	}
	return p.Start(ctx)
}

// Stop freezes the program by SIGSTOP: it hangs for all its clients. Cont lets
// it go on.
func (p *Component) Stop() error { return p.Signal(unix.SIGSTOP) }
func (p *Component) Cont() error { return p.Signal(unix.SIGCONT) }

// Log is the file to which the program writes, over all its starts.
func (p *Component) Log() string { return filepath.Join(p.c.logs(), p.Name+".log") }

// notified waits for the program's own word that it is ready.
func notified(ctx context.Context, p *Component) error { return p.WaitReady(ctx) }

// answers waits until the program answers a URL of its health with 200. Nothing
// else tells of it: these programs do not speak to a service manager.
func answers(url string) func(context.Context, *Component) error {
	return func(ctx context.Context, p *Component) error {
		last := fmt.Errorf("%s was never asked", url)
		for ctx.Err() == nil {
			if last = p.c.get(ctx, url); last == nil {
				return nil
			}
			select {
			case <-p.Exited():
				return fmt.Errorf("%s ended before it was ready: %v\n%s", p.Name, p.Err(), p.LogTail(30))
			default:
				bed.Pause(ctx, pollEvery)
			}
		}
		return fmt.Errorf("wait for %s to be ready: %w\n%s", p.Name, last, p.LogTail(30))
	}
}
