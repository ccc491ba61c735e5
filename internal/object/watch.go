package object

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"
)

// A watch ends after so long, as the server is asked, and a little later if the
// server does not end it. A dead connection is found long before by the
// transport's pings, and a dead server behind a proxy that lives by its silence: a
// server sends a bookmark each minute.
const (
	watchAtLeast = 20 * time.Minute
	watchGrace   = time.Minute
	silent       = 90 * time.Second
)

// steady is how long a watch has to live for its end to be no failure.
const steady = 10 * time.Second

var (
	errNoAnswer = fmt.Errorf("the API server did not answer for %s", deadlineAnswer)
	errEnded    = errors.New("the API server ended the watch")
	errSilent   = fmt.Errorf("the watch said nothing for %s", silent)
)

// follow reads an object and then watches it until nobody needs it.
func (s *Store) follow(e *entry) {
	f := follower{s: s, e: e}
	var b backoff
	for e.ctx.Err() == nil {
		began, from := time.Now(), f.version
		err := f.session()
		if err == nil || e.ctx.Err() != nil {
			return
		}
		if from != "" && f.version == "" {
			continue // only the version was too old: read it anew at once
		}
		s.fail(e, err, false)
		if s.known(e) && time.Since(began) >= steady {
			b.reset()
		}
		wait := b.next(err)
		s.cfg.Logger.Debug("read an object again", "object", e.ref, "in", wait, "err", err)
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-e.poke:
			b.reset()
		case <-e.ctx.Done():
		}
		again.Stop()
	}
}

func (s *Store) known(e *entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return e.known
}

// follower is what the goroutine of one object knows.
type follower struct {
	s       *Store
	e       *entry
	held    metav1.Object // nil: there is none, or it was not read yet
	version string        // from where a watch goes on; "": read it anew
	final   bool          // it never changes again
	listing bool          // a watch that begins with the state was refused
}

// session reads the object, if need be, and follows it until something goes
// wrong. No error means that it never changes again.
func (f *follower) session() error {
	life := watchAtLeast + rand.N(watchAtLeast)
	options := metav1.ListOptions{AllowWatchBookmarks: true, TimeoutSeconds: new(int64(life / time.Second)), ResourceVersion: f.version}
	state := false
	if f.version == "" {
		var err error
		if state, err = f.read(&options); err != nil || f.final {
			return err
		}
	}
	release, err := slot(f.e.ctx, f.s.watches)
	if err != nil {
		return err
	}
	defer release()
	ctx, cancel := context.WithCancelCause(f.e.ctx)
	defer cancel(nil)
	limit := time.AfterFunc(deadlineAnswer, func() { cancel(errNoAnswer) })
	defer limit.Stop()
	events, err := f.s.cfg.API.Watch(ctx, f.e.ref, options)
	if state && apierrors.IsInvalid(err) {
		f.s.listing.Store(true) // its feature is off: for all objects
	}
	if err == nil {
		defer events.Stop()
		err = f.events(ctx, events, state, func() {
			release()
			limit.Reset(life + watchGrace)
		})
	}
	return f.failed(ctx, err)
}

// failed says why a session ended, and forgets the version when the server does
// not know it (any more).
func (f *follower) failed(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if judged(err) {
		f.version = ""
	}
	return err
}

// judged tells that the error is an answer to what was asked for, and not only to
// who asked, or when.
func judged(err error) bool {
	var answer apierrors.APIStatus
	passing := apierrors.IsTooManyRequests(err) || apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.HasStatusCause(err, brokenStream)
	return errors.As(err, &answer) && !passing
}

// brokenStream is how client-go tells of a connection that was lost in a watch.
const brokenStream = "ClientWatchDecoding"

// read gets the object and sets what a watch has to ask for after that. state
// tells that the watch begins with what there is, up to a bookmark.
//
// To get it is to read what is true now, and takes a millisecond; a watch that
// begins with the state waits until the server's cache has caught up with its
// store, 100 ms and more. What comes from the cache afterwards is at least as new
// as what was got.
func (f *follower) read(options *metav1.ListOptions) (state bool, err error) {
	release, err := f.s.place(f.e.ctx)
	if err != nil {
		return false, err
	}
	defer release()
	ctx, cancel := context.WithTimeoutCause(f.e.ctx, deadlineAnswer, errNoAnswer)
	defer cancel()
	if f.listing || f.s.listing.Load() {
		o, version, err := f.s.cfg.API.List(ctx, f.e.ref)
		if err != nil {
			return false, f.failed(ctx, err)
		}
		if err := f.told(o); err != nil {
			return false, err
		}
		options.ResourceVersion, f.version = version, version
		return false, nil
	}
	o, err := f.s.cfg.API.Get(ctx, f.e.ref)
	if notFound(err) {
		o, err = nil, nil
	}
	if err != nil {
		return false, f.failed(ctx, err)
	}
	if err := f.told(o); err != nil {
		return false, err
	}
	if f.held != nil {
		options.ResourceVersion = f.held.GetResourceVersion()
	}
	options.SendInitialEvents, options.ResourceVersionMatch = new(true), metav1.ResourceVersionMatchNotOlderThan
	return true, nil
}

// told takes what the API server has now, nil for nothing.
func (f *follower) told(o runtime.Object) error {
	if o == nil {
		f.absent()
		return nil
	}
	return f.take(o)
}

// notFound tells that the object does not exist, and not only that somebody, a
// proxy perhaps, answered 404 to a request that it did not understand.
func notFound(err error) bool {
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) {
		return false
	}
	status := answer.Status()
	return status.Code == http.StatusNotFound && status.Reason == metav1.StatusReasonNotFound &&
		status.Details != nil && len(status.Details.Causes) == 0
}

// events follows a watch to its end. steady is called when it goes on from a
// known state.
func (f *follower) events(ctx context.Context, events watch.Interface, state bool, steady func()) error {
	seen := false
	if !state {
		steady()
	}
	quiet := time.NewTimer(silent)
	defer quiet.Stop()
	for {
		event, err := next(ctx, events, quiet)
		if err != nil {
			return err
		}
		switch event.Type {
		case watch.Added, watch.Modified, watch.Deleted:
			if !f.named(event.Object) {
				continue
			}
			seen = true
			if err := f.change(event); err != nil || f.final {
				return err
			}
		case watch.Bookmark:
			at, err := meta.Accessor(event.Object)
			if err != nil {
				return fmt.Errorf("read a bookmark: %w", err)
			}
			f.version = at.GetResourceVersion()
			if state && at.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true" {
				state = false
				if !seen {
					f.absent()
				}
				steady()
			}
		case watch.Error:
			err := apierrors.FromObject(event.Object)
			f.listing = state && judged(err)
			return err
		}
	}
}

// next waits for an event, and not for longer than a watch may be silent.
func next(ctx context.Context, events watch.Interface, quiet *time.Timer) (watch.Event, error) {
	quiet.Reset(silent)
	select {
	case <-quiet.C:
		return watch.Event{}, errSilent
	case event, more := <-events.ResultChan():
		if !more {
			return event, errEnded
		}
		return event, nil
	case <-ctx.Done():
		return watch.Event{}, context.Cause(ctx)
	}
}

func (f *follower) named(o any) bool {
	m, ok := o.(metav1.Object)
	return ok && m.GetName() == f.e.ref.Name && m.GetNamespace() == f.e.ref.Namespace
}

// change takes what a watch tells. What is older than what is held was on its way
// from a cache that lags.
func (f *follower) change(event watch.Event) error {
	m := event.Object.(metav1.Object)
	if f.held != nil && older(m.GetResourceVersion(), f.held.GetResourceVersion()) {
		return nil
	}
	if event.Type == watch.Deleted {
		f.absent()
	} else if err := f.take(event.Object); err != nil {
		return err
	}
	f.version = m.GetResourceVersion()
	return nil
}

// older tells that version a came before b. Versions that cannot be compared do
// not tell.
func older(a, b string) bool {
	c, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && c < 0
}

func (f *follower) absent() {
	f.held = nil
	f.s.put(f.e, nil)
}

// take holds what the API server has, trimmed to what somebody here reads.
func (f *follower) take(o any) error {
	m, ok := o.(metav1.Object)
	if !ok {
		return fmt.Errorf("read %s: the answer is a %T", f.e.ref.Kind, o)
	}
	if v := m.GetResourceVersion(); f.held != nil && v != "" && f.held.GetUID() == m.GetUID() && f.held.GetResourceVersion() == v {
		return nil
	}
	var immutable *bool
	switch o := o.(type) {
	case *corev1.ConfigMap:
		kept := &corev1.ConfigMap{ObjectMeta: trimmed(&o.ObjectMeta), Data: o.Data, BinaryData: o.BinaryData}
		f.held, immutable = kept, o.Immutable
		f.s.put(f.e, kept)
	case *corev1.Secret:
		kept := &corev1.Secret{ObjectMeta: trimmed(&o.ObjectMeta), Data: o.Data, Type: o.Type}
		f.held, immutable = kept, o.Immutable
		f.s.put(f.e, kept)
	default:
		return fmt.Errorf("read %s: the answer is a %T", f.e.ref.Kind, o)
	}
	f.final = immutable != nil && *immutable
	return nil
}

// trimmed is what is kept of an object's metadata: labels, annotations and
// managed fields are often larger than the data, and nobody here reads them.
func trimmed(m *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion}
}
