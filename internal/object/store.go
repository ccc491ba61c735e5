package object

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// Config says whom to ask and whom to tell.
type Config struct {
	API API
	// Changed is called when an object that somebody was told of came, went or
	// changed, or when why it cannot be read did. It must not block.
	Changed func(pod.ObjectRef)
	// NodeLabels are those of the Node object, which volumes may demand; nil: none.
	NodeLabels func() map[string]string
	// Rate bounds the requests by time, but not the beginnings of watches; nil: nothing
	// does.
	Rate   *rate.Limiter
	Logger *slog.Logger
}

// connecting is how many requests, and besides how many beginnings of watches, are
// under way at once: enough for a hundred pods in a second, few enough for a server
// that has just come back. A watch begins slowly; who reads must not wait for it.
const connecting = 16

// deadlineAnswer bounds each request, and how long a watch may take to begin.
const deadlineAnswer = 30 * time.Second

// Store holds the objects of the node's pods.
type Store struct {
	cfg     Config
	reads   chan struct{}
	watches chan struct{}
	listing atomic.Bool // the API server is too old to begin a watch with a state

	ctx     context.Context // of everything that runs
	cancel  context.CancelFunc
	flights sync.WaitGroup

	mu      sync.Mutex // never held over a call of a collaborator
	running bool
	pods    map[types.UID]*kept
	objects map[pod.ObjectRef]*entry
}

// kept is a pod and what is held for it.
type kept struct {
	pod    *corev1.Pod
	refs   []pod.ObjectRef
	tokens map[pod.TokenWish]*token
}

// New returns an empty Store.
func New(cfg Config) (*Store, error) {
	if cfg.API == nil || cfg.Changed == nil || cfg.Logger == nil {
		return nil, errors.New("configure objects: the API, changed and a logger are needed")
	}
	if cfg.NodeLabels == nil {
		cfg.NodeLabels = func() map[string]string { return nil }
	}
	if cfg.Rate == nil {
		cfg.Rate = rate.NewLimiter(rate.Inf, 0)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Store{
		cfg: cfg, reads: make(chan struct{}, connecting), watches: make(chan struct{}, connecting), ctx: ctx, cancel: cancel,
		pods: map[types.UID]*kept{}, objects: map[pod.ObjectRef]*entry{},
	}, nil
}

// Run reads until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	s.mu.Lock()
	s.running = true
	for _, e := range s.objects {
		s.begin(e)
	}
	for _, k := range s.pods {
		for _, t := range k.tokens {
			s.ask(&t.asking)
		}
	}
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	s.running = false // nothing begins from here on
	s.mu.Unlock()
	s.cancel()
	s.flights.Wait()
	return ctx.Err()
}

// place waits for one of the places of those who read, and for its turn.
func (s *Store) place(ctx context.Context) (release func(), err error) {
	if release, err = slot(ctx, s.reads); err != nil {
		return nil, err
	}
	if err := s.cfg.Rate.Wait(ctx); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// slot waits for one of the places of those who connect. release may be called
// more than once.
func slot(ctx context.Context, places chan struct{}) (release func(), err error) {
	select {
	case places <- struct{}{}:
		return sync.OnceFunc(func() { <-places }), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
