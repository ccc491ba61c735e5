//go:build linux

package main

import (
	"context"
	"sync"

	eventstypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/log"
)

const queueMax = 256

// eventQueue stands between the task service and containerd. Publish never
// waits, so that a dead or hung containerd holds nothing up; what is over the
// limit is dropped, oldest first, exits and OOM kills last. Events only wake
// somebody up: the exit record is the truth.
type eventQueue struct {
	inner  shim.Publisher
	onExit func(ev *eventstypes.TaskExit, publish func()) bool // takes over the exit of an init

	mu     sync.Mutex
	queue  []queuedEvent
	closed bool
	wake   chan struct{} // holds one
	done   chan struct{}
}

type queuedEvent struct {
	ctx   context.Context
	topic string
	event events.Event
}

func newEventQueue(inner shim.Publisher) *eventQueue {
	return &eventQueue{inner: inner, wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// Publish queues the event, or hands the exit of a container's init to onExit,
// which publishes it after the record is on disk.
func (q *eventQueue) Publish(ctx context.Context, topic string, event events.Event) error {
	ev := queuedEvent{ctx: context.WithoutCancel(ctx), topic: topic, event: event}
	if exit, ok := event.(*eventstypes.TaskExit); ok && exit.ID == exit.ContainerID && q.onExit != nil {
		if q.onExit(exit, func() { q.push(ev) }) {
			return nil
		}
	}
	q.push(ev)
	return nil
}

func (q *eventQueue) push(ev queuedEvent) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	if len(q.queue) >= queueMax {
		q.dropOne()
	}
	q.queue = append(q.queue, ev)
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *eventQueue) dropOne() {
	at := 0
	for i, ev := range q.queue {
		if !lasting(ev.event) {
			at = i
			break
		}
	}
	q.queue = append(q.queue[:at], q.queue[at+1:]...)
}

func lasting(ev events.Event) bool {
	switch ev.(type) {
	case *eventstypes.TaskExit, *eventstypes.TaskOOM:
		return true
	}
	return false
}

// run publishes until Close.
func (q *eventQueue) run() {
	for {
		select {
		case <-q.done:
			return
		case <-q.wake:
		}
		for {
			ev, ok := q.pop()
			if !ok {
				break
			}
			// The publisher bounds each try to 5 s and keeps the context for
			// its retries, so a deadline of ours would only spoil those.
			if err := q.inner.Publish(ev.ctx, ev.topic, ev.event); err != nil {
				log.L.WithError(err).WithField("topic", ev.topic).Debug("publish event")
			}
		}
	}
}

func (q *eventQueue) pop() (queuedEvent, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) == 0 || q.closed {
		q.queue = nil // a burst's memory is not kept
		return queuedEvent{}, false
	}
	ev := q.queue[0]
	q.queue = q.queue[1:]
	return ev, true
}

// Close ends run; the task service calls it when it shuts down.
func (q *eventQueue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil
	}
	q.closed = true
	close(q.done)
	return q.inner.Close()
}
