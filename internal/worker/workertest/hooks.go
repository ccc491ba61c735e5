package workertest

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// NoteStop implements worker.Stops.
func (d *Daemon) NoteStop(ctx context.Context, id string, grace time.Duration, hooked, again bool) error {
	return d.step(ctx, "note stop "+id, func() error {
		c := d.w.containers[id]
		if c == nil {
			return nil
		}
		if by := time.Now().Add(grace); c.Stop.By.IsZero() || by.Before(c.Stop.By) {
			c.Stop.By = by
		}
		c.Stop.Hooked, c.Stop.Again = c.Stop.Hooked || hooked, c.Stop.Again || again
		d.w.note("note stop of %s %s within %s, hooked %t, again %t", id, c.Name, grace, c.Stop.Hooked, c.Stop.Again)
		return nil
	})
}

// NotePostStart implements worker.Stops.
func (d *Daemon) NotePostStart(ctx context.Context, id string) error {
	return d.step(ctx, "note postStart "+id, func() error {
		if c := d.w.containers[id]; c != nil {
			c.PostStart = false
			d.w.note("postStart of %s %s is through", id, c.Name)
		}
		return nil
	})
}

// Run implements worker.Hooks: a hook takes as long as its sleep does.
func (d *Daemon) Run(ctx context.Context, h pod.Hook) error {
	running := func() error {
		if c := d.w.containers[h.Container]; c == nil || c.State != pod.ContainerRunning {
			return errors.New("the container does not run")
		}
		return nil
	}
	if err := d.step(ctx, "begin hook in "+h.Container, running); err != nil {
		return d.hookFails(h.Container, err)
	}
	if h.Handler.Sleep != nil {
		select {
		case <-time.After(time.Duration(h.Handler.Sleep.Seconds) * time.Second):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return d.hookFails(h.Container, d.step(ctx, "end hook in "+h.Container, running))
}

// hookFails remembers whose postStart hook failed.
func (d *Daemon) hookFails(id string, err error) error {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if c := d.w.containers[id]; err != nil && c != nil && c.PostStart {
		c.hookFailed = true
	}
	return err
}

// term checks what must hold when a container gets its stop signal; called with mu held.
func (w *World) term(c *container, grace time.Duration) {
	now := time.Now()
	if grace < 2*time.Second {
		w.breaks("%s of pod %s has %s between TERM and KILL", c.Name, c.uid, grace)
	}
	early := c.Stop.By.IsZero() || now.Before(c.Stop.By)
	if c.PreStop != "" && !c.Stop.Hooked && early {
		w.breaks("%s of pod %s got TERM before its preStop hook had ended", c.Name, c.uid)
	}
	if c.Sidecar == 0 || !early || c.behaviour.FailsAfter > 0 || c.Stop.Again || c.hookFailed {
		return
	}
	for _, o := range w.containers {
		if o.uid == c.uid && o != c && o.State == pod.ContainerRunning && (!o.Init || o.Sidecar > c.Sidecar) {
			w.breaks("sidecar %s of pod %s got TERM before %s had ended", c.Name, c.uid, o.Name)
		}
	}
}

// Target is the id of the container whose process namespace the last run of the named
// one has joined.
func (w *World) Target(uid types.UID, name string) (target string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.containers {
		if c.uid == uid && c.Name == name {
			target = c.target
		}
	}
	return target
}

// awaitEnd waits until the container has ended or its time is over, which another stop
// may shorten.
func (d *Daemon) awaitEnd(ctx context.Context, id string) error {
	for {
		d.w.mu.Lock()
		c := d.w.containers[id]
		over := c == nil || c.State != pod.ContainerRunning || !time.Now().Before(c.Stop.By)
		d.w.mu.Unlock()
		if over {
			return nil
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
