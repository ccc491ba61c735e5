package object

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"nodeagent/internal/pod"
)

// ServicesAPI is the API server as far as it has services, of all namespaces.
type ServicesAPI interface {
	ListServices(ctx context.Context, options metav1.ListOptions) (*corev1.ServiceList, error)
	WatchServices(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
}

// Services knows what containers are told of services by variables. It keeps
// nothing else of them, and watches them all, as a node may, unless somebody tells of
// them who watches them anyway.
type Services struct {
	api  ServicesAPI
	log  *slog.Logger
	once sync.Once
	read chan struct{} // closed when they were read once, or what was kept of them counts

	changed chan struct{} // holds one: for Keep

	mu    sync.Mutex
	all   byName
	fresh byName // what was told since Begin, until Complete

	version string // belongs to Run
	listing bool
}

// byName are services by namespace and name.
type byName map[string]map[string]pod.Service

func (b byName) put(s pod.Service) {
	if b[s.Namespace] == nil {
		b[s.Namespace] = map[string]pod.Service{}
	}
	b[s.Namespace][s.Name] = s
}

func (b byName) drop(namespace, name string) {
	delete(b[namespace], name)
	if len(b[namespace]) == 0 {
		delete(b, namespace)
	}
}

// NewServices returns Services that know of none yet.
func NewServices(api ServicesAPI, log *slog.Logger) (*Services, error) {
	if api == nil || log == nil {
		return nil, errors.New("configure services: the API and a logger are needed")
	}
	return &Services{api: api, log: log, read: make(chan struct{}), changed: make(chan struct{}, 1)}, nil
}

// errServicesUnread is kubelet's.
var errServicesUnread = errors.New("services have not yet been read at least once, cannot construct envvars")

// Variables are those of the services in the namespace and of the API server's
// own; without links only of that one. A service of the namespace that has the
// name of the API server's takes its place.
func (s *Services) Variables(namespace string, links bool) (map[string]string, error) {
	select {
	case <-s.read:
	default:
		return nil, errServicesUnread
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	told := map[string]pod.Service{}
	if api, ok := s.all[metav1.NamespaceDefault][pod.APIService]; ok {
		told[api.Name] = api
	}
	if links {
		maps.Copy(told, s.all[namespace])
	}
	all := map[string]string{}
	for _, one := range told {
		one.Variables(all)
	}
	return all, nil
}

// Await waits until services were read once, or ctx ends.
func (s *Services) Await(ctx context.Context) {
	select {
	case <-s.read:
	case <-ctx.Done():
	}
}

// Run follows the services until ctx ends.
func (s *Services) Run(ctx context.Context) error {
	var b backoff
	for ctx.Err() == nil {
		began, from := time.Now(), s.version
		err := s.session(ctx)
		if from != "" && s.version == "" {
			continue
		}
		if time.Since(began) >= steady {
			b.reset()
		}
		wait := b.next(err)
		s.log.Debug("read services again", "in", wait, "err", err)
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
	}
	return ctx.Err()
}

func (s *Services) session(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	limit := time.AfterFunc(deadlineAnswer, func() { cancel(errNoAnswer) })
	defer limit.Stop()
	life := watchAtLeast + rand.N(watchAtLeast)
	err := s.follow(ctx, life, func() { limit.Reset(life + watchGrace) })
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if judged(err) {
		s.version = ""
	}
	return err
}

// follow reads services where no watch can go on, and then watches them.
func (s *Services) follow(ctx context.Context, life time.Duration, steady func()) error {
	options := metav1.ListOptions{AllowWatchBookmarks: true, TimeoutSeconds: new(int64(life / time.Second)), ResourceVersion: s.version}
	state := s.version == "" && !s.listing
	switch {
	case state:
		options.SendInitialEvents, options.ResourceVersionMatch = new(true), metav1.ResourceVersionMatchNotOlderThan
	case s.version == "":
		if err := s.list(ctx); err != nil {
			return err
		}
		options.ResourceVersion = s.version
	}
	events, err := s.api.WatchServices(ctx, options)
	if err != nil {
		s.listing = s.listing || state && apierrors.IsInvalid(err)
		return err
	}
	defer events.Stop()
	if state {
		s.Begin()
	} else {
		steady()
	}
	quiet := time.NewTimer(silent)
	defer quiet.Stop()
	for {
		event, err := next(ctx, events, quiet)
		if err != nil {
			return err
		}
		done, err := s.take(event, state)
		if err != nil {
			s.listing = s.listing || state && judged(err)
			return err
		}
		if done {
			s.Complete()
			state = false
			steady()
		}
	}
}

// list reads all services. They come in pages, so that none is large.
func (s *Services) list(ctx context.Context) error {
	s.Begin()
	options := metav1.ListOptions{Limit: 500}
	for {
		l, err := s.api.ListServices(ctx, options)
		if err != nil {
			return err
		}
		for i := range l.Items {
			s.Tell(&l.Items[i], false)
		}
		if options.Continue = l.Continue; l.Continue == "" {
			s.version = l.ResourceVersion
			s.Complete()
			return nil
		}
	}
}

// take takes an event. While all are told from the start (state) no watch can go on from
// it; done tells that it was all.
func (s *Services) take(event watch.Event, state bool) (done bool, err error) {
	switch event.Type {
	case watch.Error:
		return false, apierrors.FromObject(event.Object)
	case watch.Bookmark:
		at, err := meta.Accessor(event.Object)
		if err != nil {
			return false, fmt.Errorf("read a bookmark: %w", err)
		}
		done = state && at.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true"
		if done || !state {
			s.version = at.GetResourceVersion()
		}
		return done, nil
	}
	o, ok := event.Object.(*corev1.Service)
	if !ok {
		return false, fmt.Errorf("watch services: the server sent a %T", event.Object)
	}
	s.Tell(o, event.Type == watch.Deleted)
	if !state {
		s.version = o.ResourceVersion
	}
	return false, nil
}
