package stats

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// Pods are the node's pods.
type Pods interface {
	Pods() []*corev1.Pod
}

// Runtime is what the container runtime holds of a pod.
type Runtime interface {
	Observe(uid types.UID) pod.RuntimeState
}

// Cgroups reads what cgroups use; "/" is the machine's own. Figures fails with
// os.ErrNotExist where there is none.
type Cgroups interface {
	Figures(ctx context.Context, cgroup string) (Figures, error)
	PodPath(uid types.UID, qos corev1.PodQOSClass) (string, error)
	ContainerCgroup(parent, id string) string
	Kubepods() string
}

// Network tells what the interfaces of networks have carried, by the path of each;
// "" is the node's.
type Network interface {
	Counters(ctx context.Context, netns []string) map[string][]Interface
}

// Config says where to read.
type Config struct {
	NodeName string
	Machine  Machine
	Pods     Pods
	Runtime  Runtime
	Cgroups  Cgroups
	Network  Network
	Disk     Disk
	// Daemon has what the daemon counts of itself; nil: nothing.
	Daemon prometheus.Gatherer
	// Certificates are those of the node: by which it is known, and which it shows; nil:
	// it has none.
	Certificates func() (client, serving Certificate)
	// Own is the daemon's own cgroup; "" or "/": it has none.
	Own string
	// Proc is the proc file system; /proc if empty.
	Proc   string
	Logger *slog.Logger
}

// Certificate is when a certificate ends, zero where there is none, and how often it
// could not be renewed.
type Certificate struct {
	End    time.Time
	Errors int
}

// Machine is what the machine is, which does not change.
type Machine struct {
	CPUs                          int
	Memory, Swap                  uint64
	Boot                          time.Time
	MachineID, SystemUUID, BootID string
	Kernel, OSImage               string
}

const (
	// fresh is how long a reading serves all who ask: less than half of the shortest
	// time between two readings of metrics-server, so that these differ.
	fresh = 5 * time.Second
	// readTime bounds a reading.
	readTime = 10 * time.Second
)

// Meter reads what is used.
type Meter struct {
	cfg  Config
	cpu  *cached[*Reading]
	disk *cached[*Disks]

	before map[string]sample // the reading before, for rates; of who holds cpu's turn
	layers map[string]layer  // by container; of who holds disk's turn
}

// New returns a Meter, which reads nothing yet.
func New(cfg Config) (*Meter, error) {
	if cfg.Pods == nil || cfg.Runtime == nil || cfg.Cgroups == nil || cfg.Network == nil || cfg.Disk == nil || cfg.Logger == nil {
		return nil, errors.New("configure the meter: pods, runtime, cgroups, network, disk and logger are needed")
	}
	if cfg.Proc == "" {
		cfg.Proc = "/proc"
	}
	return &Meter{cfg: cfg, cpu: newCached[*Reading](), disk: newCached[*Disks](), layers: map[string]layer{}}, nil
}

// Read returns what the cgroups of the node use, as it was at most five seconds ago.
func (m *Meter) Read(ctx context.Context) (*Reading, error) { return m.cpu.get(ctx, m.read) }

// cached is something that is read by one at a time.
type cached[T any] struct {
	turn chan struct{} // holds one while somebody reads

	mu   sync.Mutex
	last T
	at   time.Time // when its reading began; zero: there is none
}

func newCached[T any]() *cached[T] { return &cached[T]{turn: make(chan struct{}, 1)} }

// get returns what was read a short while ago, or reads. Who waits for another's
// reading waits no longer than ctx; a reading itself goes on when who asked for it
// has gone, so that asking and going cannot make the node read all the time.
func (c *cached[T]) get(ctx context.Context, read func(context.Context) (T, error)) (T, error) {
	var none T
	if v, ok := c.known(); ok {
		return v, nil
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
	if v, ok := c.known(); ok {
		return v, nil
	}
	begun := time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTime)
	defer cancel()
	v, err := read(ctx)
	if err != nil {
		return none, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last, c.at = v, begun
	return v, nil
}

func (c *cached[T]) known() (v T, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() || time.Since(c.at) >= fresh {
		return v, false
	}
	return c.last, true
}
