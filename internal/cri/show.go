package cri

import (
	"context"
	"time"

	apitypes "k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// showLimit is how long the end of a container may be kept from its pod while it
// is not yet on the record. Usual is a few milliseconds.
const showLimit = 2 * time.Second

// Observe returns what the runtime holds of a pod, from memory. The result
// shares nothing with the runtime.
//
// What it tells of a container is on the record, since it will be told on: a
// restart count or an exit code that a power cut takes back would have been a
// lie. So a container counts from when its record is written, and as ended from
// when its end is. Where containerd does not write, an end is shown all the same,
// after showLimit at the latest.
func (n *Native) Observe(uid apitypes.UID) pod.RuntimeState {
	st := n.state
	st.mu.Lock()
	defer st.mu.Unlock()
	out := pod.RuntimeState{UID: uid}
	m := st.pods[uid]
	if m == nil {
		return out
	}
	out.Namespace, out.Name = m.namespace, m.name
	for _, s := range m.sandboxes {
		if s.visible {
			out.Sandboxes = append(out.Sandboxes, s.observe())
		}
	}
	for _, c := range m.containers {
		if c.kind == kindContainer && !c.creating {
			out.Containers = append(out.Containers, c.observe())
		}
	}
	return out
}

// observe is the container as it is shown. The caller holds the state's mutex.
func (c *container) observe() pod.Container {
	o := c.info
	if c.held && !c.stopping {
		o.State, o.Finished, o.ExitCode = pod.ContainerRunning, time.Time{}, 0
		o.OOMKilled, o.Reason, o.Message = false, "", ""
	}
	if c.stop != nil {
		o.Stop = pod.Stop{By: time.Now().Add(c.stop.left()), Hooked: c.stop.Hooked, Again: c.stop.Again}
	}
	return o
}

// holds tells whether an end that is seen now may wait for its record: containerd
// answers, and nobody saw the end before. A daemon that starts may find what the
// one before had shown.
func (n *Native) holds() bool {
	select {
	case <-n.synced:
		return n.Healthy() == nil
	default:
		return false
	}
}

// note puts the end of c on its record, and shows it.
func (n *Native) note(ctx context.Context, c *container) error {
	defer n.show(c)
	ctx, cancel := context.WithTimeout(ctx, showLimit)
	defer cancel()
	select {
	case n.settles.slots <- struct{}{}:
		defer func() { <-n.settles.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := c.lock.acquire(ctx); err != nil {
		return err
	}
	defer c.lock.release()
	return n.makeDurable(ctx, c)
}

// show ends the wait for the record.
func (n *Native) show(c *container) {
	var was bool
	n.state.edit(func() { was, c.held = c.held, false })
	if was {
		n.cfg.Wake(c.uid)
	}
}
