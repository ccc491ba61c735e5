package cri

import (
	"context"
	"fmt"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"
)

// subscribe returns the ends of tasks as containerd tells them. Nothing is
// replayed; what was missed is found by a relist.
func (n *Native) subscribe(ctx context.Context) (<-chan *events.Envelope, <-chan error) {
	filter := func(topic string) string {
		return fmt.Sprintf("topic==%q,namespace==%q", topic, n.cfg.Namespace)
	}
	return n.client.EventService().Subscribe(ctx, filter("/tasks/exit"), filter("/tasks/delete"))
}

// handleEvent takes an event as a hint only.
func (n *Native) handleEvent(ctx context.Context, e *events.Envelope) {
	if e == nil || e.Event == nil {
		return
	}
	v, err := typeurl.UnmarshalAny(e.Event)
	if err != nil {
		n.log.Debug("cannot decode an event", "topic", e.Topic, "err", err)
		return
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
	}
}
