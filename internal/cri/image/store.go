package image

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/time/rate"
)

// Config is what a Store needs. Zero values take the defaults named.
type Config struct {
	Client      *containerd.Client
	Namespace   string // containerd namespace, default "k8s.io"
	Snapshotter string // default "overlayfs"
	// Owner names this daemon in the leases that it takes; Sweep removes those
	// that an earlier one of the same name left. Default "nodeagent".
	Owner string

	// HostsDir is the directory of registry host configurations
	// (certs.d/<host>/hosts.toml), read by the containerd daemon; "" for none.
	HostsDir string
	// DockerConfigs are the files searched for credentials, in this order; nil
	// means /var/lib/kubelet/config.json, then ~/.docker/config.json.
	DockerConfigs []string

	// ProgressDeadline ends a pull that made no progress for so long;
	// default 60 s.
	ProgressDeadline time.Duration
	// Parallel is how many pulls run at once; default 3. One in which nothing
	// has moved for LendAfter, default 5 s, does not count.
	Parallel  int
	LendAfter time.Duration
	// PullQPS is how many pulls may begin in a second, PullBurst how many at once
	// after a rest; PullQPS 0, the default, is no bound.
	PullQPS   float64
	PullBurst int
	// MaxSize bounds the compressed bytes of one image or archive; default
	// 64 GiB.
	MaxSize int64
	// Platform is what images must run on; default the host's.
	Platform *ocispec.Platform

	Logger *slog.Logger
}

// Image is what is known of an image in the store. It is a value: do not change
// the slices and maps in it, they are shared.
type Image struct {
	Name        string              // the complete reference it was found by
	ID          digest.Digest       // digest of the image's config, as CRI's image id
	Target      digest.Digest       // digest of the manifest or index the name points at
	RepoTags    []string            // complete names with a tag
	RepoDigests []string            // repository@digest, for what came from a registry
	Size        int64               // bytes of config, manifest and compressed layers
	Config      ocispec.ImageConfig // hostile
	DiffIDs     []digest.Digest     // of the uncompressed layers
	ChainID     digest.Digest       // of the root file system: the snapshot's name; "" for no layers
	Platform    ocispec.Platform
	// Unpacked tells that the snapshot was there when last looked at; Unpack
	// looks again.
	Unpacked bool
	// Problem says why the image cannot run here; "" for a good one. Only List
	// returns images with a problem.
	Problem string
	// Access tells for whom it was pulled.
	Access Access
	// Pinned: it stays when images that nothing uses are removed.
	Pinned bool

	lost    bool     // a part of it turned out to be gone
	sources []string // registry/repository that the target came from, without a port
}

// Store is the node's images.
type Store struct {
	cfg     Config
	match   platforms.MatchComparer
	slots   chan struct{} // one token a running pull
	pace    *rate.Limiter // of their beginnings
	flights flights
	cache   cache
	born    time.Time // by the wall clock, as leases are
}

// Bounds of the calls to containerd, so that one that hangs is seen.
const (
	callDeadline   = 15 * time.Second // look-ups and records
	unpackDeadline = 15 * time.Minute // one image, without progress to watch
	leaseExpiry    = 24 * time.Hour   // of a lease whose daemon died for ever
)

// New returns a Store. It does not talk to containerd.
func New(cfg Config) (*Store, error) {
	if cfg.Client == nil {
		return nil, errors.New("image store needs a containerd client")
	}
	if cfg.ProgressDeadline < 0 || cfg.Parallel < 0 || cfg.PullQPS < 0 || cfg.PullBurst < 0 || cfg.MaxSize < 0 {
		return nil, errors.New("image store: a limit is negative")
	}
	set(&cfg.Namespace, "k8s.io")
	set(&cfg.Snapshotter, "overlayfs")
	set(&cfg.Owner, "nodeagent")
	set(&cfg.ProgressDeadline, 60*time.Second)
	set(&cfg.Parallel, 3)
	set(&cfg.LendAfter, 5*time.Second)
	set(&cfg.MaxSize, 64<<30)
	if cfg.DockerConfigs == nil {
		cfg.DockerConfigs = []string{"/var/lib/kubelet/config.json"}
		if home, err := os.UserHomeDir(); err == nil {
			cfg.DockerConfigs = append(cfg.DockerConfigs, home+"/.docker/config.json")
		}
	}
	if cfg.Platform == nil {
		p := platforms.DefaultSpec()
		cfg.Platform = &p
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	pace := rate.NewLimiter(rate.Inf, 0)
	if cfg.PullQPS > 0 {
		pace = rate.NewLimiter(rate.Limit(cfg.PullQPS), max(cfg.PullBurst, 1))
	}
	return &Store{
		cfg:     cfg,
		pace:    pace,
		born:    time.Now(),
		match:   platforms.Only(*cfg.Platform),
		slots:   make(chan struct{}, cfg.Parallel),
		flights: flights{running: map[any]*flight{}},
		cache:   cache{byTarget: map[digest.Digest]Image{}},
	}, nil
}

func set[T comparable](p *T, def T) {
	var zero T
	if *p == zero {
		*p = def
	}
}

// call returns the context of one short call to containerd.
func (s *Store) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.namespaced(ctx), callDeadline)
}

func (s *Store) namespaced(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, s.cfg.Namespace)
}

// cache keeps what was read of an image by the digest that its name points at:
// content never changes under a digest.
type cache struct {
	mu       sync.Mutex
	byTarget map[digest.Digest]Image
}

// maxCached bounds the cache; a node has some hundred images at most.
const maxCached = 1024

func (c *cache) get(d digest.Digest) (Image, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	img, ok := c.byTarget[d]
	return img, ok
}

func (c *cache) put(d digest.Digest, img Image) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.byTarget) >= maxCached {
		clear(c.byTarget)
	}
	c.byTarget[d] = img
}

func (c *cache) drop(d digest.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byTarget, d)
}
