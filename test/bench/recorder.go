package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	eventtypes "github.com/containerd/containerd/api/events"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/typeurl/v2"

	"nodeagent/test/bed"
)

// recorder notes when containers start and when their records go, from
// containerd's events.
type recorder struct {
	client *containerd.Client

	mu      sync.Mutex
	started map[string]time.Time // container id: when runc start had returned
	deleted int                  // records
	last    time.Time            // when the last of them went
	changed chan struct{}        // closed and replaced at each event
	failed  error
}

func record(ctx context.Context, b *bed.Bed) (*recorder, error) {
	c, err := b.Dial()
	if err != nil {
		return nil, err
	}
	r := &recorder{client: c, started: map[string]time.Time{}, changed: make(chan struct{})}
	events, errs := c.Subscribe(ctx, `namespace==k8s.io,topic=="/tasks/start"`, `namespace==k8s.io,topic=="/containers/delete"`)
	go func() {
		for {
			select {
			case e := <-events:
				v, err := typeurl.UnmarshalAny(e.Event)
				r.note(e.Timestamp, v, err)
			case err := <-errs:
				r.note(time.Now(), nil, fmt.Errorf("containerd ended the events: %w", err))
				return
			}
		}
	}()
	return r, nil
}

func (r *recorder) note(at time.Time, event any, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch e := event.(type) {
	case *eventtypes.TaskStart:
		r.started[e.ContainerID] = at
	case *eventtypes.ContainerDelete:
		r.deleted++
		r.last = at
	}
	if err != nil {
		r.failed = err
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

// reset forgets what was noted.
func (r *recorder) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.started)
	r.deleted = 0
}

// starts waits until n containers have started since reset, and returns when the
// last of these did.
func (r *recorder) starts(ctx context.Context, n int) (time.Time, error) {
	for {
		r.mu.Lock()
		have, failed, wake := len(r.started), r.failed, r.changed
		var last time.Time
		for _, at := range r.started {
			if at.After(last) {
				last = at
			}
		}
		r.mu.Unlock()
		if failed != nil {
			return last, failed
		}
		if have >= n {
			return last, nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return last, fmt.Errorf("wait for %d containers to start (%d have): %w", n, have, ctx.Err())
		}
	}
}

// records counts the containers in containerd, sandboxes included.
func (r *recorder) records(ctx context.Context) (int, error) {
	all, err := r.client.ContainerService().List(ctx)
	return len(all), err
}

func (r *recorder) gone() (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.deleted, r.failed
}
