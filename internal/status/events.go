package status

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Sink takes events. Errors are those of apimachinery's api/errors where the API
// server answered.
type Sink interface {
	CreateEvent(ctx context.Context, e *corev1.Event) error
	PatchEvent(ctx context.Context, name types.NamespacedName, patch []byte) error
}

// EventsConfig is what events are told with; Sink and NodeName must be set.
type EventsConfig struct {
	Sink     Sink
	NodeName string
	// QPS and Burst are kubelet's eventRecordQPS and eventBurst; a QPS of 0: no limit.
	QPS    int32
	Burst  int32
	Logger *slog.Logger
}

// Events tells what happens on the node. A nil *Events takes all reports and tells
// nobody: a node without an API server.
type Events struct {
	cfg  EventsConfig
	poke chan struct{} // holds one

	mu      sync.Mutex // never held over a call
	queue   []observation
	dropped int
	stamp   int64 // of the last event's name
}

// observation is an event as somebody saw it.
type observation struct {
	event *corev1.Event
	at    time.Time
}

const (
	maxQueue   = 1000 // events that wait
	maxMessage = 2 << 10
	// staleEvent is when nobody looks for an event any more: the API server keeps
	// them for an hour.
	staleEvent = time.Hour
	// component is whom events are from. Dashboards and tests look for kubelet's.
	component = "kubelet"
	// proxyComponent is whom those of services are from.
	proxyComponent = "kube-proxy"
)

// NewEvents returns a teller of events that tells nothing until Run.
func NewEvents(cfg EventsConfig) (*Events, error) {
	if cfg.Sink == nil || cfg.NodeName == "" {
		return nil, errors.New("configure events: sink and node name are needed")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Events{cfg: cfg, poke: make(chan struct{}, 1)}, nil
}

// Pod reports what happened to a pod, or to its container of that name where there is
// one. kind is Normal or Warning. It never blocks; when too much waits to be told, the
// oldest is forgotten.
func (e *Events) Pod(p *corev1.Pod, container, kind, reason, message string) {
	if e == nil {
		return
	}
	e.report(corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID,
		ResourceVersion: p.ResourceVersion, FieldPath: fieldPath(p, container),
	}, kind, reason, message)
}

// Node reports what happened to the node. It never blocks.
func (e *Events) Node(kind, reason, message string) {
	if e == nil {
		return
	}
	// The name for a UID is kubelet's way, and kubectl describe node looks for it.
	e.report(corev1.ObjectReference{Kind: "Node", Name: e.cfg.NodeName, UID: types.UID(e.cfg.NodeName)}, kind, reason, message)
}

// Service reports what happened to a Service on this node. It never blocks.
func (e *Events) Service(name types.NamespacedName, uid types.UID, kind, reason, message string) {
	if e == nil {
		return
	}
	e.reportAs(proxyComponent, corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: name.Namespace, Name: name.Name, UID: uid}, kind, reason, message)
}

func (e *Events) report(ref corev1.ObjectReference, kind, reason, message string) {
	e.reportAs(component, ref, kind, reason, message)
}

func (e *Events) reportAs(component string, ref corev1.ObjectReference, kind, reason, message string) {
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "")
	}
	now, namespace := time.Now(), ref.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	o := observation{at: now, event: &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace},
		InvolvedObject: ref, Type: kind, Reason: reason, Message: message, Count: 1,
		FirstTimestamp: metav1.NewTime(now), LastTimestamp: metav1.NewTime(now),
		Source:              corev1.EventSource{Component: component, Host: e.cfg.NodeName},
		ReportingController: component, ReportingInstance: e.cfg.NodeName,
	}}
	e.mu.Lock()
	e.stamp = max(e.stamp+1, now.UnixNano()) // no two events have one name
	o.event.Name = fmt.Sprintf("%.230s.%x", ref.Name, e.stamp)
	if len(e.queue) >= maxQueue {
		e.queue = append(e.queue[:0], e.queue[1:]...)
		e.dropped++
	}
	e.queue = append(e.queue, o)
	e.mu.Unlock()
	select {
	case e.poke <- struct{}{}:
	default:
	}
}

// fieldPath names a container as kubelet does.
func fieldPath(p *corev1.Pod, container string) string {
	if container == "" {
		return ""
	}
	for i := range p.Spec.InitContainers {
		if p.Spec.InitContainers[i].Name == container {
			return "spec.initContainers{" + container + "}"
		}
	}
	for i := range p.Spec.EphemeralContainers {
		if p.Spec.EphemeralContainers[i].Name == container {
			return "spec.ephemeralContainers{" + container + "}"
		}
	}
	return "spec.containers{" + container + "}"
}

// Run tells what is reported until ctx ends; what waits then is lost.
func (e *Events) Run(ctx context.Context) error {
	c, limit := newCorrelator(), rate.NewLimiter(rate.Inf, 1)
	if e.cfg.QPS > 0 {
		limit = rate.NewLimiter(rate.Limit(e.cfg.QPS), max(int(e.cfg.Burst), 1))
	}
	for {
		o, ok := e.pop()
		if !ok {
			select {
			case <-ctx.Done():
				return nil
			case <-e.poke:
			}
			continue
		}
		event, allowed := c.correlate(o)
		if !allowed {
			continue
		}
		if limit.Wait(ctx) != nil {
			return nil
		}
		e.send(ctx, event, o.at)
	}
}

// pop takes the oldest observation that is worth telling.
func (e *Events) pop() (observation, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) == 0 {
		e.queue = nil // after a flood
		return observation{}, false
	}
	o := e.queue[0]
	e.queue[0] = observation{}
	e.queue = e.queue[1:]
	return o, true
}

// send tells one event, again and again while nobody listens.
func (e *Events) send(ctx context.Context, event *corev1.Event, at time.Time) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for fails := 0; time.Since(at) < staleEvent; fails++ {
		err := e.once(ctx, event)
		if err == nil {
			e.confess()
			return
		}
		if !refuses(err) && !apierrors.IsInternalError(err) && !apierrors.IsServerTimeout(err) && !apierrors.IsTimeout(err) {
			e.cfg.Logger.Debug("an event was refused", "reason", event.Reason, "object", event.InvolvedObject.Name, "err", err)
			return
		}
		timer.Reset(max(backoff(fails, leastBackoff, mostOutage), asked(err)))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
	}
}

func (e *Events) once(ctx context.Context, event *corev1.Event) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	if event.Count > 1 {
		patch := encode(map[string]any{"count": event.Count, "lastTimestamp": event.LastTimestamp, "message": event.Message})
		err := e.cfg.Sink.PatchEvent(ctx, types.NamespacedName{Namespace: event.Namespace, Name: event.Name}, patch)
		if !apierrors.IsNotFound(err) {
			return err
		}
	}
	err := e.cfg.Sink.CreateEvent(ctx, event)
	if apierrors.IsAlreadyExists(err) {
		return nil // an answer was lost
	}
	return err
}

// confess says once in the log how many events nobody will ever be told.
func (e *Events) confess() {
	e.mu.Lock()
	n := e.dropped
	e.dropped = 0
	e.mu.Unlock()
	if n > 0 {
		e.cfg.Logger.Warn("events were forgotten untold: too many waited for the API server", "count", n)
	}
}
