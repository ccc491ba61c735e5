package measure

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	eventtypes "github.com/containerd/containerd/api/events"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"
)

// Topics of containerd that a Recorder notes.
const (
	RecordMade  = "/containers/create"
	RecordGone  = "/containers/delete"
	TaskMade    = "/tasks/create"
	TaskStarted = "/tasks/start" // runc start has returned
	TaskEnded   = "/tasks/exit"
)

// Event is one of containerd's.
type Event struct {
	Topic string
	ID    string    // of the container
	At    time.Time // as of who published it
	Ended time.Time // of TaskEnded: when the shim saw the process end
}

// Recorder notes when containers are made, start, end and go.
type Recorder struct {
	mu      sync.Mutex
	seen    []Event
	changed chan struct{} // closed and replaced at each event
	failed  error
}

// Record notes the events of some topics until ctx ends.
func Record(ctx context.Context, c *containerd.Client, namespace string, topics ...string) *Recorder {
	var filters []string
	for _, topic := range topics {
		filters = append(filters, fmt.Sprintf("namespace==%s,topic==%q", namespace, topic))
	}
	r := &Recorder{changed: make(chan struct{})}
	envelopes, errs := c.Subscribe(ctx, filters...)
	go func() {
		for {
			select {
			case e := <-envelopes:
				r.note(event(e))
			case err := <-errs:
				r.note(Event{}, fmt.Errorf("containerd ended the events: %w", err))
				return
			}
		}
	}()
	return r
}

func event(e *events.Envelope) (Event, error) {
	noted := Event{Topic: e.Topic, At: e.Timestamp}
	v, err := typeurl.UnmarshalAny(e.Event)
	switch v := v.(type) {
	case *eventtypes.ContainerCreate:
		noted.ID = v.GetID()
	case *eventtypes.ContainerDelete:
		noted.ID = v.GetID()
	case *eventtypes.TaskCreate:
		noted.ID = v.GetContainerID()
	case *eventtypes.TaskStart:
		noted.ID = v.GetContainerID()
	case *eventtypes.TaskExit:
		noted.ID, noted.Ended = v.GetContainerID(), v.GetExitedAt().AsTime()
	}
	return noted, err
}

func (r *Recorder) note(e Event, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.failed = err
	} else {
		r.seen = append(r.seen, e)
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

// Reset forgets what was noted.
func (r *Recorder) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = nil
}

// Seen are the events since Reset, in the order in which they came.
func (r *Recorder) Seen() ([]Event, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen), r.failed
}

// Count tells how many events of a topic came since Reset.
func (r *Recorder) Count(topic string) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, _ := r.of(topic)
	return n, r.failed
}

func (r *Recorder) of(topic string) (n int, last time.Time) {
	for _, e := range r.seen {
		if e.Topic == topic {
			n++
			if e.At.After(last) {
				last = e.At
			}
		}
	}
	return n, last
}

// Wait waits until n events of a topic have come since Reset, and returns when the
// last of them was.
func (r *Recorder) Wait(ctx context.Context, topic string, n int) (time.Time, error) {
	for {
		r.mu.Lock()
		have, last := r.of(topic)
		failed, wake := r.failed, r.changed
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
			return last, fmt.Errorf("wait for %d events %s (%d came): %w", n, topic, have, ctx.Err())
		}
	}
}
