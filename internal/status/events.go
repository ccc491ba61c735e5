package status

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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
	busy    time.Time
}

// observation is an event as somebody saw it.
type observation struct {
	event   *corev1.Event
	at      time.Time
	named   bool      // event is the one to tell, with what it repeats
	refused int       // how often
	due     time.Time // it is not told before; zero: at once
	patient bool      // it waits for what is busier
}

const (
	maxQueue   = 1000 // events that wait
	maxMessage = 2 << 10
	// maxPatient is how many may wait before none is patient any more.
	maxPatient = maxQueue / 2
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

// Yield has what went well with pods wait until then, since something of more haste is
// under way, but never for longer than patience. It never blocks.
func (e *Events) Yield(until time.Time) {
	if e == nil {
		return
	}
	e.mu.Lock()
	e.busy = until
	e.mu.Unlock()
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
	o := observation{at: now, patient: kind == corev1.EventTypeNormal && ref.Kind == "Pod", event: &corev1.Event{
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
	for fails := 0; ; {
		o, wait := e.pop()
		if o.event == nil {
			if !e.rest(ctx, wait) {
				return nil
			}
			continue
		}
		if !o.named {
			if o.event, o.named = c.correlate(o); !o.named {
				continue
			}
		}
		if limit.Wait(ctx) != nil {
			return nil
		}
		if e.send(ctx, o) {
			fails = 0
			continue
		}
		// Nobody answers: no event fares better than this one.
		if pause(ctx, backoff(fails, leastBackoff, mostOutage)); ctx.Err() != nil {
			return nil
		}
		fails++
	}
}

// rest waits until something is reported, ctx ends, which is false, or so much time
// has passed; 0 is for ever.
func (e *Events) rest(ctx context.Context, wait time.Duration) bool {
	var over <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-e.poke:
	case <-over:
	}
	return true
}

// pause waits so long, or until ctx ends.
func pause(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// pop takes the first observation that is due; where there is none, wait is until
// one is, 0 for never.
func (e *Events) pop() (o observation, wait time.Duration) {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.queue {
		o := e.queue[i]
		if early := e.due(&o).Sub(now); early > 0 {
			if wait == 0 || early < wait {
				wait = early
			}
			continue
		}
		if i == 0 {
			e.queue[0] = observation{}
			e.queue = e.queue[1:]
		} else {
			e.queue = slices.Delete(e.queue, i, i+1)
		}
		return o, 0
	}
	if len(e.queue) == 0 {
		e.queue = nil // after a flood
	}
	return observation{}, wait
}

// due tells when an observation may be told. The caller holds the lock.
func (e *Events) due(o *observation) time.Time {
	if !o.patient || o.named || len(e.queue) > maxPatient {
		return o.due
	}
	return waits(o.at, quiet, e.busy)
}

// giveBack has an observation wait behind all others. Where too many wait it is the
// oldest.
func (e *Events) giveBack(o observation) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) >= maxQueue {
		e.dropped++
		return
	}
	e.queue = append(e.queue, o)
}

// send tells one event. What nobody answers goes back for an hour, and what the API
// server refuses for now a few times, while it is asked for others: an admission
// hook may refuse one event and not the next. false: nobody answered.
func (e *Events) send(ctx context.Context, o observation) bool {
	if time.Since(o.at) >= staleEvent {
		return true
	}
	err := e.once(ctx, o.event)
	var answer apierrors.APIStatus
	switch answered := errors.As(err, &answer); {
	case err == nil:
		e.confess()
	case !answered:
		e.giveBack(o)
		return false
	case passing(err) && o.refused < mostRefused:
		o.due = time.Now().Add(max(backoff(o.refused, leastRefused, mostOutage), asked(err)))
		o.refused++
		e.giveBack(o)
	default:
		e.cfg.Logger.Debug("an event was refused", "reason", o.event.Reason, "object", o.event.InvolvedObject.Name, "err", err)
	}
	return true
}

// How often an event that was refused for now is told again, and after what time for
// the first time.
const (
	mostRefused  = 3
	leastRefused = time.Second
)

// passing tells whether the same request may be taken another time.
func passing(err error) bool {
	return refuses(err) || apierrors.IsInternalError(err) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err)
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
