package node

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pulse"
)

// Config is what a node works with.
type Config struct {
	Identity Identity
	// Register makes the Node where there is none; else somebody else does, and
	// until then this one waits.
	Register   bool
	Nodes      Nodes
	Leases     Leases
	Conditions Conditions
	// Facts tells from memory what the node is; who changes them calls Wake.
	Facts func() Facts

	// LeaseDuration is nodeLeaseDurationSeconds; renewed every quarter of it.
	LeaseDuration time.Duration
	// ReportEvery is nodeStatusReportFrequency.
	ReportEvery time.Duration

	// PodCIDRs takes the ranges of pods' addresses when they become known and
	// when they change; Changed the Node when it does, nil when it is gone. What
	// they get is not to be changed. Event tells an operator. Nil: nobody asks.
	// They must not block.
	PodCIDRs func([]netip.Prefix)
	Changed  func(*corev1.Node)
	Event    func(Event)
	// Reconnect gives up connections that may be dead, after the second failure
	// in a row that no server answered.
	Reconnect func()

	// Wall is the clock for what others read, which may jump; Dice is from [0,1).
	Wall   func() time.Time
	Dice   func() float64
	Logger *slog.Logger
}

// Node keeps the API server's picture of this node true.
type Node struct {
	cfg  Config
	poke chan struct{} // holds one: decide again
	beat chan struct{} // holds one: look at the lease again

	mu    sync.Mutex // never held over a call of a collaborator
	seen  sighting
	rival bool      // another one renews this node's lease
	heard time.Time // when the server last did what it was asked for
	shown Shown

	writing, renewing pulse.Pulse

	// The rest belongs to the goroutine that writes.
	last     last
	cidrs    string
	told     *corev1.Node // what Changed was given
	toldGone bool
	absent   string // conditions nobody judges, as logged
	booted   bool   // the Rebooted event was made
}

// Defaults of KubeletConfiguration.
const (
	defaultLease  = 40 * time.Second
	defaultReport = 5 * time.Minute
	minLease      = 4 * time.Second
)

// callTimeout is how long a request may take: kubelet's, and never so long that
// the lease runs out meanwhile.
const callTimeout = 10 * time.Second

// New checks the configuration. It touches nothing.
func New(cfg Config) (*Node, error) {
	switch {
	case cfg.Nodes == nil || cfg.Leases == nil || cfg.Conditions == nil || cfg.Facts == nil || cfg.Logger == nil:
		return nil, errors.New("configure the node: nodes, leases, conditions, facts and logger are needed")
	case cfg.Identity.Name == "":
		return nil, errors.New("configure the node: it has no name")
	}
	if err := CheckLabels(cfg.Identity.Labels); err != nil {
		return nil, err
	}
	if cfg.Identity.Hostname == "" {
		cfg.Identity.Hostname = cfg.Identity.Name
	}
	if cfg.Identity.MaxImages == 0 {
		cfg.Identity.MaxImages = defaultImages
	}
	if cfg.LeaseDuration == 0 {
		cfg.LeaseDuration = defaultLease
	}
	if cfg.LeaseDuration < minLease {
		return nil, errors.New("configure the node: nodeLeaseDurationSeconds is less than 4: it would run out between two renewals")
	}
	if cfg.ReportEvery <= 0 {
		cfg.ReportEvery = defaultReport
	}
	if cfg.PodCIDRs == nil {
		cfg.PodCIDRs = func([]netip.Prefix) {}
	}
	if cfg.Changed == nil {
		cfg.Changed = func(*corev1.Node) {}
	}
	if cfg.Event == nil {
		cfg.Event = func(Event) {}
	}
	if cfg.Reconnect == nil {
		cfg.Reconnect = func() {}
	}
	if cfg.Wall == nil {
		cfg.Wall = time.Now
	}
	if cfg.Dice == nil {
		cfg.Dice = rand.Float64
	}
	return &Node{cfg: cfg, poke: make(chan struct{}, 1), beat: make(chan struct{}, 1)}, nil
}

// Wake has the node look again at its facts and conditions.
func (n *Node) Wake() { knock(n.poke) }

func knock(door chan struct{}) {
	select {
	case door <- struct{}{}:
	default:
	}
}

// Seen is the Node as the API showed it last; nil: there is none, or the API has
// not answered yet. It is not to be changed.
func (n *Node) Seen() *corev1.Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.seen.node
}

// Shown is what an operator may want to know of this room.
type Shown struct {
	Registered  bool                       `json:"registered"`
	UID         string                     `json:"uid,omitempty"`
	Written     time.Time                  `json:"written,omitzero"` // the status, last
	WriteError  string                     `json:"writeError,omitempty"`
	Renewed     time.Time                  `json:"renewed,omitzero"` // the lease, last
	RenewError  string                     `json:"renewError,omitempty"`
	FollowError string                     `json:"followError,omitempty"`
	Rival       bool                       `json:"rival,omitempty"` // another one writes the lease
	Absent      []corev1.NodeConditionType `json:"absent,omitempty"`
}

// Show tells how it stands.
func (n *Node) Show() Shown {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.shown
	s.Rival = n.rival
	if n.seen.node != nil {
		s.Registered, s.UID = true, string(n.seen.node.UID)
	}
	return s
}

func (n *Node) show(change func(*Shown)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(&n.shown)
}
