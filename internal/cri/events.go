package cri

import (
	"context"
	"fmt"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"
)

// subscribe returns the ends of tasks and records as containerd tells them. Nothing is
// replayed; what was missed is found by a relist.
func (n *Native) subscribe(ctx context.Context) (<-chan *events.Envelope, <-chan error) {
	filter := func(topic string) string {
		return fmt.Sprintf("topic==%q,namespace==%q", topic, n.cfg.Namespace)
	}
	return n.client.EventService().Subscribe(ctx, filter("/tasks/exit"), filter("/tasks/delete"), filter("/containers/delete"))
}

// handleEvent takes an event as a hint only. It tells whether the records are to be
// looked at: somebody else has removed one.
func (n *Native) handleEvent(ctx context.Context, e *events.Envelope) (lost bool) {
	if e == nil || e.Event == nil {
		return false
	}
	v, err := typeurl.UnmarshalAny(e.Event)
	if err != nil {
		n.log.Debug("cannot decode an event", "topic", e.Topic, "err", err)
		return false
	}
	switch e := v.(type) {
	case *apievents.TaskExit:
		if e.GetID() == e.GetContainerID() { // else an exec
			n.noticeExit(ctx, e.GetContainerID())
		}
	case *apievents.TaskDelete:
		if e.GetID() == "" || e.GetID() == e.GetContainerID() {
			n.noticeExit(ctx, e.GetContainerID())
		}
	case *apievents.ContainerDelete:
		return n.expects(e.GetID())
	}
	return false
}

// expects tells whether the record belongs into the picture: it does not while, and
// after, it is removed by us.
func (n *Native) expects(id string) (held bool) {
	n.state.edit(func() {
		if c := n.state.containers[id]; c != nil {
			held = !c.removing && !c.starting
		} else if s := n.state.sandboxes[id]; s != nil {
			held = !s.stopping && !s.stopped
		}
	})
	return held
}
