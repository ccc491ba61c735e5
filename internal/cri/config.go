package cri

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/cri/image"
	"nodeagent/internal/cri/spec"
	"nodeagent/internal/shimapi"
)

// Config is what a Native needs. Zero values take the defaults named.
type Config struct {
	Address     string // containerd's socket, default /run/containerd/containerd.sock
	Namespace   string // containerd namespace, default k8s.io
	Snapshotter string // default overlayfs
	Runtime     string // runtime name, default the shim of this project
	RuncBinary  string // "" means the runc of containerd's PATH
	// Handlers are the runtime handlers beside the default one, which is Runtime
	// and RuncBinary, by name.
	Handlers      map[string]Handler
	SystemdCgroup bool   // cgroup driver
	RunDir        string // default /run/nodeagent
	StateDir      string // default /var/lib/nodeagent
	NetnsDir      string // default /run/netns
	CgroupRoot    string // mount point of the cgroup hierarchies, default /sys/fs/cgroup
	LogMaxSize    int64  // bytes of one log file, default 10 MiB
	LogMaxFiles   int    // files of one container, default 5
	SeccompDir    string // root of Localhost profiles, default /var/lib/kubelet/seccomp

	Image   image.Config // Client, Namespace and Snapshotter are filled in
	Network Network      // nil: only sandboxes on the host network can run

	// BootID names this boot of the machine; default the kernel's.
	BootID string

	// Wake is told that a pod's state changed by itself. It must not block.
	Wake func(types.UID)
	// Changed, if set, is told when Healthy's answer has changed. It must not block.
	Changed func()
	// Relisted, if set, is told of each look at containerd's records that came to an
	// end: when it began, and how long it took. It must not block.
	Relisted func(began time.Time, took time.Duration)
	Logger   *slog.Logger

	CallTimeout   time.Duration // of one RPC, default 10 s
	CreateTimeout time.Duration // of making a task, a network or a snapshot, default 60 s
	PingInterval  time.Duration // between two looks whether containerd answers, default 5 s
	RelistEvery   time.Duration // between two looks at containerd's records, default 300 s
	LookEvery     time.Duration // between two looks at the processes, default 30 s
	PinInterval   time.Duration // least time between two looks at the namespaces, default 5 s
}

func (c *Config) setDefaults() {
	def(&c.Address, "/run/containerd/containerd.sock")
	def(&c.Namespace, "k8s.io")
	def(&c.Snapshotter, "overlayfs")
	def(&c.Runtime, shimapi.Runtime)
	c.Handlers = maps.Clone(c.Handlers)
	for name, h := range c.Handlers {
		def(&h.Runtime, shimapi.Runtime)
		c.Handlers[name] = h
	}
	def(&c.RunDir, shimapi.DefaultRunDir)
	def(&c.StateDir, "/var/lib/nodeagent")
	def(&c.NetnsDir, "/run/netns")
	def(&c.CgroupRoot, "/sys/fs/cgroup")
	def(&c.SeccompDir, "/var/lib/kubelet/seccomp")
	def(&c.LogMaxSize, 10<<20)
	def(&c.LogMaxFiles, 5)
	def(&c.CallTimeout, 10*time.Second)
	def(&c.CreateTimeout, 60*time.Second)
	def(&c.PingInterval, 5*time.Second)
	def(&c.RelistEvery, 300*time.Second)
	def(&c.LookEvery, 30*time.Second)
	def(&c.PinInterval, 5*time.Second)
	if c.Wake == nil {
		c.Wake = func(types.UID) {}
	}
	if c.Changed == nil {
		c.Changed = func() {}
	}
	if c.Relisted == nil {
		c.Relisted = func(time.Time, time.Duration) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// New returns a runtime that talks to containerd once Run runs. It opens no
// connection and writes nothing; it reads the facts of the host.
func New(cfg Config) (*Native, error) {
	cfg.setDefaults()
	for _, dir := range []*string{&cfg.RunDir, &cfg.StateDir, &cfg.NetnsDir, &cfg.CgroupRoot} {
		if !filepath.IsAbs(*dir) {
			return nil, fmt.Errorf("runtime directory %q is not absolute", *dir)
		}
		*dir = filepath.Clean(*dir)
	}
	if cfg.LogMaxSize < 0 || cfg.LogMaxFiles < 1 {
		return nil, errors.New("log limits must be positive")
	}
	host, err := spec.ReadHost()
	if err != nil {
		return nil, fmt.Errorf("read facts of the host: %w", err)
	}
	if cfg.BootID == "" {
		if cfg.BootID, err = bootID(); err != nil {
			return nil, err
		}
	}
	lacking := NoAppArmor()
	if kernelHasAppArmor() && lacking != "" {
		cfg.Logger.Warn("run containers without an AppArmor profile although the kernel has AppArmor: " + lacking)
	}
	client, err := containerd.New(cfg.Address,
		containerd.WithDefaultNamespace(cfg.Namespace),
		containerd.WithDefaultRuntime(cfg.Runtime),
		containerd.WithExtraDialOpts(dialOptions(cfg.CallTimeout)))
	if err != nil {
		return nil, fmt.Errorf("prepare containerd client: %w", err)
	}
	cfg.Image.Client, cfg.Image.Namespace, cfg.Image.Snapshotter = client, cfg.Namespace, cfg.Snapshotter
	def(&cfg.Image.Logger, cfg.Logger)
	images, err := image.New(cfg.Image)
	if err != nil {
		return nil, fmt.Errorf("prepare image store: %w", err)
	}
	return &Native{
		cfg: cfg, log: cfg.Logger, host: host, boot: cfg.BootID,
		client: client, images: images,
		state:    newState(),
		accounts: newAccountsCache(),
		armor:    &armor{lacking: lacking},
		synced:   make(chan struct{}),
		health:   health{err: errNotConnected, since: time.Now()},
		settles:  newSettler(8),
	}, nil
}

// dialOptions make a lost connection come back quickly: the client's own
// back-off grows to its call timeout.
func dialOptions(timeout time.Duration) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: timeout,
		}),
		grpc.WithChainUnaryInterceptor(overdue),
	}
}
