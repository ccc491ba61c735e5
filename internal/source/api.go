package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"nodeagent/internal/durable"
)

// sourceAPI is what a pod of the API server says its source is.
const sourceAPI = "api"

// APIConfig is what the API server's source is made of.
type APIConfig struct {
	// NodeName selects the pods: those that are bound to it.
	NodeName string
	// Rest says where the API server is; HTTP reaches it, with the credentials of
	// the node, and may be shared with others.
	Rest *rest.Config
	HTTP *http.Client
	// After, when not nil, is closed when the server may be asked: kubelet asks for
	// pods only when it knows its Node, which admission needs.
	After <-chan struct{}
	// Default fills what an older API server left open; nil: nothing does.
	Default func(*corev1.Pod)
	// Running lists the pods that the runtime holds; nil: none.
	Running func() []types.UID
	// Cache keeps what was seen last, for a start without the server; nil: nothing
	// does.
	Cache *durable.Dir
	// NoBrake makes a list that lacks most pods count at once, as kubelet does.
	NoBrake bool
	// Emit takes each new snapshot; it must not block. The latest one counts.
	Emit func(Snapshot)
	// Echo, when not nil, takes a pod of which nothing changed but what the node
	// itself writes of it. Such a change makes no snapshot. It must not block.
	Echo   func(*corev1.Pod)
	Logger *slog.Logger
}

// API is the source of the pods that an API server has bound to this node.
type API struct {
	cfg    APIConfig
	server server
	cache  *podCache // nil: none
	heard  atomic.Int64

	pods    map[types.UID]*held
	version string // from where the next watch goes on; "" asks for everything
	highest string // the latest version that was ever seen
	plain   bool   // the server does not stream the first list
	listed  bool   // the server has answered in this process
	trusted bool
	away    bool // the server cannot be reached, so that the cache is what counts
	changed bool // since the latest snapshot

	doubt   *doubt // nil: none
	timer   *time.Timer
	answers chan answer
	owned   sync.WaitGroup // goroutines of Run's
	failed  Problem        // zero: the server answers
}

// held is a pod as it was seen last. version runs ahead of the pod's own when only
// what the node writes has changed since.
type held struct {
	pod     *corev1.Pod
	version string
}

// NewAPI checks the configuration. It asks nobody.
func NewAPI(cfg APIConfig) (*API, error) {
	switch {
	case cfg.NodeName == "":
		return nil, errors.New("configure API source: the node has no name")
	case cfg.Rest == nil || cfg.HTTP == nil || cfg.Emit == nil:
		return nil, errors.New("configure API source: Rest, HTTP and Emit are needed")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	s, err := newServer(cfg)
	if err != nil {
		return nil, fmt.Errorf("configure API source: %w", err)
	}
	a := &API{
		cfg: cfg, server: s, pods: map[types.UID]*held{},
		answers: make(chan answer), changed: true,
	}
	if cfg.Cache != nil {
		a.cache = newPodCache(cfg.Cache, cfg.Logger)
	}
	return a, nil
}

// Heard is when the server was last heard of; zero: never. It may be called from
// any goroutine.
func (a *API) Heard() time.Time {
	if n := a.heard.Load(); n != 0 {
		return time.Unix(0, n)
	}
	return time.Time{}
}

// awayAfter is for how long a server that may not be asked yet is not away.
const awayAfter = 10 * time.Second

// Run follows the server until ctx ends and emits a snapshot at once, and one more
// whenever something changed. Nothing that the server does makes it fail: what is
// wrong is part of the snapshot. It returns nil; it is called once.
func (a *API) Run(ctx context.Context) error {
	a.timer = time.NewTimer(time.Hour)
	a.timer.Stop()
	defer a.timer.Stop()
	defer a.owned.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if a.cache != nil {
		a.restore(a.cache.load(a.cfg.NodeName))
		a.owned.Go(func() { a.cache.run(ctx) })
	}
	a.emit()
	if !a.begin(ctx) {
		return nil
	}
	var pause backoff
	for ctx.Err() == nil {
		begun := time.Now()
		err := a.follow(ctx)
		if ctx.Err() != nil {
			break
		}
		lasted := time.Since(begun)
		if errors.Is(err, errEnded) && lasted < stood {
			err = errShort
		}
		a.report(err)
		a.emit()
		if !a.rest(ctx, pause.next(err, lasted)) {
			break
		}
	}
	return nil
}

// begin waits until the server may be asked. Where that takes long, the cache
// counts.
func (a *API) begin(ctx context.Context) bool {
	if a.cfg.After == nil {
		return true
	}
	long := time.NewTimer(awayAfter)
	defer long.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-a.cfg.After:
			return true
		case <-long.C:
			a.goAway()
			a.emit()
		}
	}
}

// rest waits before the next try, and does meanwhile what is due.
func (a *API) rest(ctx context.Context, pause time.Duration) bool {
	over := time.NewTimer(pause)
	defer over.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-over.C:
			return true
		case <-a.timer.C:
			a.ask(ctx)
		case got := <-a.answers:
			a.resolve(got)
			a.emit()
		}
	}
}

// report keeps what is wrong with the server for the snapshot.
func (a *API) report(err error) {
	if err == nil || errors.Is(err, errEnded) || errors.Is(err, errPlain) {
		return
	}
	message := plain(fmt.Sprintf("watch the pods of this node: %v", err))
	if message == a.failed.Message {
		return
	}
	if a.failed.Message == "" {
		a.failed.Since = time.Now()
	}
	a.failed.File, a.failed.Message, a.changed = a.server.name, message, true
	a.goAway()
}

// answered notes that the server is there.
func (a *API) answered() {
	a.heard.Store(time.Now().UnixNano())
	if a.failed.Message != "" {
		a.failed, a.changed = Problem{}, true
	}
}

// goAway lets the cache count in full: the server cannot say what has become of its
// pods, and they are to run without it.
func (a *API) goAway() {
	if !a.away && !a.listed {
		a.away, a.changed = true, true
	}
}
