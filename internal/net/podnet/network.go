// Package podnet owns the pods' interfaces, their addresses, and the rules for
// masquerade and hostPort, which live in a firewall table of its own. Where the
// node has a CNI configuration, plugins do that work and podnet runs them;
// otherwise it makes a bridge with a veth pair a pod.
//
// It never touches a rule, link or address that it did not make, apart from
// asking the host's own FORWARD chain to let pods through where its policy is
// DROP. It makes and deletes no network namespace: it gets paths of namespaces.
// It works in the network namespace of its process.
//
// Setup, Teardown, Check, Ready, Retire, Vacant and Prune may be called from any goroutine; for
// one sandbox they run one after another. They wait for Run to have loaded the
// state. Run is called once.
package podnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"nodeagent/internal/durable"
	"nodeagent/internal/net/news"
)

// Config is what a Network needs to know of its node.
type Config struct {
	// StateDir survives a reboot (/var/lib/nodeagent): the journal of CNI calls.
	// RunDir does not (/run/nodeagent): the journal of the bridge.
	StateDir, RunDir string
	// CNIConfDir and CNIBinDir are those of the plugins (/etc/cni/net.d,
	// /opt/cni/bin). A valid configuration there wins over CIDRs.
	CNIConfDir, CNIBinDir string
	// CIDRs are the ranges of this node's pods. A pod gets one address of each
	// family, from the first range of the family that has one left. The first
	// address of a range is the bridge's.
	CIDRs []netip.Prefix
	// NonMasquerade are further destinations that see the address of the pod
	// itself, such as the ranges of the other nodes' pods.
	NonMasquerade []netip.Prefix
	// Bridge is the name of the bridge; "" means "nodeagent0". Two daemons in
	// one network namespace need two names.
	Bridge string
	// MTU of bridge and pod interfaces in bytes; 0 means that of the interface
	// with the node's default route, or 1500.
	MTU int
	// Lost, if set, is told of a sandbox whose interface went away other than
	// by Teardown: when it goes, and again at each look until Teardown. It must not block; Check tells the truth at any time.
	Lost func(sandboxID string)
	// Changed, if set, is told when Ready's answer may have changed. It must not
	// block.
	Changed func()
	// Vacated, if set, is told when Vacant may have become true. It must not block.
	Vacated func()
	// Services, if set, are the sockets that write the rules of services, which never
	// concern those of pods: nothing of them is heard.
	Services *news.Own
	Logger   *slog.Logger
}

// Request names a sandbox and what its network shall be like.
type Request struct {
	SandboxID string
	// Netns is the path of the pod's network namespace. Teardown works with one
	// that is gone.
	Netns                string
	Namespace, Name, UID string
	Ports                []PortMapping
	// Annotations of the pod: only kubernetes.io/{ingress,egress}-bandwidth are
	// acted upon; all go to plugins that ask for
	// io.kubernetes.cri.pod-annotations.
	Annotations map[string]string
	// CgroupParent and DNS go to plugins that ask for them.
	CgroupParent string
	DNS          *DNS
}

// DNS is the resolver configuration of a pod.
type DNS struct {
	Servers, Searches, Options []string
}

// PortMapping publishes a port of the pod on the node.
type PortMapping struct {
	// Protocol is TCP, UDP or SCTP; "" means TCP.
	Protocol                string
	ContainerPort, HostPort int32
	// HostIP limits the mapping to one address of the node. "" means all of
	// both families, 0.0.0.0 and :: all of theirs. A loopback address
	// is served to callers on the node that come from another of its addresses:
	// for the rest the kernel would have to route 127/8.
	HostIP string
}

// Result is what a pod got.
type Result struct {
	// Addrs are the pod's addresses: IPv4 first, at most one of each family.
	Addrs []netip.Addr
}

// ErrLost is wrapped by Check's error for a network that is gone for good: the
// sandbox has to be made anew.
var ErrLost = errors.New("pod network lost")

// defaultTimeout bounds a call whose context has no deadline of its own.
const defaultTimeout = 2 * time.Minute

// undoTimeout bounds the rollback of a Setup that failed, which must run even
// though its context is over.
const undoTimeout = 30 * time.Second

// Network is the pod network of one node.
type Network struct {
	cfg     Config
	log     *slog.Logger
	runs    *journal     // bridge: journal in RunDir
	cniRecs *durable.Dir // CNI: journal in StateDir

	loaded chan struct{} // closed by Run once the state is known
	wake   chan struct{} // one item: Run shall look at everything again
	locks  keyedLock     // by sandbox ID

	mu      sync.Mutex // guards what follows
	failure error      // why the state could not be loaded or made true
	pool    *pool
	recs    map[string]*record // by sandbox ID; a *record is never changed, only replaced
	conf    *netConf           // CNI configuration in force; nil: bridge
	confErr error              // why there are files but no configuration
	retired error              // why no pod gets an address of the ranges any more
	next    []netip.Prefix     // the ranges that follow them

	rulesMu sync.Mutex // one change of the table at a time
	rules   ruleBackend

	// turns bounds the Setups at work: the kernel's routing lock admits one at a
	// time, so more of them gain nothing and keep a thread each.
	turns chan struct{}
	flows flowTable
	grave grave // links to delete, together
}

// New returns a Network that has touched nothing yet.
func New(c Config) (*Network, error) {
	if c.Bridge == "" {
		c.Bridge = defaultBridge
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if !bridgeName.MatchString(c.Bridge) {
		return nil, fmt.Errorf("use bridge name %q: not 1-15 of a-z, 0-9, '-' and '_'", c.Bridge)
	}
	if c.MTU != 0 && (c.MTU < 1280 || c.MTU > 65535) {
		return nil, fmt.Errorf("use mtu %d: not between 1280 and 65535", c.MTU)
	}
	if !filepath.IsAbs(c.RunDir) || !filepath.IsAbs(c.StateDir) {
		return nil, fmt.Errorf("use run directory %q and state directory %q: paths must be absolute", c.RunDir, c.StateDir)
	}
	p, err := newPool(c.CIDRs)
	if err != nil {
		return nil, err
	}
	states, err := durable.New(durable.Config{Path: filepath.Join(c.StateDir, "podnet")})
	if err != nil {
		return nil, err
	}
	return &Network{
		cfg: c, log: c.Logger, cniRecs: states, pool: p,
		runs:   &journal{dir: filepath.Join(c.RunDir, "podnet")},
		loaded: make(chan struct{}),
		wake:   make(chan struct{}, 1),
		recs:   map[string]*record{},
		turns:  make(chan struct{}, 4),
		grave:  grave{group: rand.Uint32() | 1<<30},
	}, nil
}

const defaultBridge = "nodeagent0"

var (
	bridgeName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,14}$`)
	// plain is what may reach a file name, an interface's alias or the
	// arguments of a plugin, whose separators are ';' and '='.
	plain = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,252}$`)
)

func (r *Request) check() error {
	if !plain.MatchString(r.SandboxID) || len(r.SandboxID) > 128 {
		return fmt.Errorf("use sandbox id %q: not a plain name of at most 128 characters", r.SandboxID)
	}
	for _, s := range []string{r.Namespace, r.Name, r.UID} {
		if s != "" && !plain.MatchString(s) {
			return fmt.Errorf("use pod identity %q: not a plain name", s)
		}
	}
	return nil
}

// begin checks a request, bounds its context, waits for the state and takes the
// sandbox. The caller calls end.
func (n *Network) begin(ctx context.Context, r *Request) (_ context.Context, end func(), _ error) {
	if err := r.check(); err != nil {
		return nil, nil, err
	}
	cancel := context.CancelFunc(func() {})
	if _, ok := ctx.Deadline(); !ok {
		ctx, cancel = context.WithTimeout(ctx, defaultTimeout)
	}
	select {
	case <-n.loaded:
	case <-ctx.Done():
		cancel()
		return nil, nil, fmt.Errorf("wait for the pod network to be loaded: %w", context.Cause(ctx))
	}
	unlock, err := n.locks.lock(ctx, r.SandboxID)
	if err != nil {
		cancel()
		return nil, nil, fmt.Errorf("wait for the running network call of sandbox %s: %w", r.SandboxID, err)
	}
	return ctx, func() { unlock(); cancel() }, nil
}

// Loaded is closed once it is known which networks there are.
func (n *Network) Loaded() <-chan struct{} { return n.loaded }

// Ready returns nil, or why a pod that needs a network cannot start.
func (n *Network) Ready() error {
	select {
	case <-n.loaded:
	default:
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.failure != nil {
			return fmt.Errorf("pod network is not loaded: %w", n.failure)
		}
		return errors.New("pod network is not loaded yet")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.readyLocked()
}

func (n *Network) readyLocked() error {
	switch {
	case n.conf != nil:
		return nil
	case n.confErr != nil:
		return fmt.Errorf("cni plugin not initialized: %w", n.confErr)
	case len(n.cfg.CIDRs) == 0:
		return fmt.Errorf("cni plugin not initialized: no configuration in %s, and no pod CIDR to make a bridge for", n.cfg.CNIConfDir)
	case n.retired != nil:
		return n.retired
	}
	return n.failure
}

// kick makes Run look at everything again, soon.
func (n *Network) kick() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *Network) record(sandbox string) *record {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.recs[sandbox]
}
