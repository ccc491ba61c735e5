package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"nodeagent/internal/net"
	"nodeagent/internal/pulse"
)

// Config is what a Proxy is made of. Flows, Teller and Serve may be nil: then that
// is not done.
type Config struct {
	NodeName string
	// Rest says where the API server is; HTTP reaches it, with credentials that may
	// list and watch Services, EndpointSlices and the Node.
	Rest *rest.Config
	HTTP *http.Client
	// Backend makes the Backend, anew when facts of the Node change that it Needs.
	Backend func(Facts) (Backend, error)
	Needs   Needs
	// Mode is the name of the Backend's kind, for people.
	Mode   string
	Flows  Flows
	Teller Teller
	Serve  Serve // for health-check ports
	// Listener hears of Services, if there is one.
	Listener Listener
	// Settings is what /configz shows.
	Settings any
	// Process writes what the process uses of the machine, for who reads metrics; nil:
	// nothing.
	Process func(io.Writer) error
	Logger  *slog.Logger
}

// Needs says what matters to the Backend: facts of the Node, for which there is another
// one when they change, and the ranges of which cluster IPs are drawn.
type Needs struct{ Addrs, PodCIDRs, ServiceCIDRs bool }

func (n Needs) of(f Facts) Facts {
	if !n.Addrs {
		f.Addrs = nil
	}
	if !n.PodCIDRs {
		f.PodCIDRs = nil
	}
	return f
}

// Proxy keeps service rules right.
type Proxy struct {
	cfg       Config
	followers [kinds]*follower
	news      chan news
	wakes     chan struct{} // holds one: somebody else changed the rules
	questions chan func()   // of who explains: Run calls them
	flows     *forgetter
	checks    *checks
	state     *state
	pulse     pulse.Pulse

	// What follows belongs to Run.
	model   *net.Model
	uids    map[net.Key]types.UID
	told    map[net.Key][]net.Finding
	listed  [kinds]bool
	node    nodeFacts
	facts   Facts // of the Backend
	backend Backend
	leave   context.CancelFunc // ends the Backend's watch
	owned   sync.WaitGroup
	timer   *time.Timer

	sure    bool // the kernel holds what it was told last
	owed    owed
	begun   bool // it was told something once
	whole   time.Time
	patient time.Time // for how long is waited for what rules could do without
	again   pause     // after errors
	retryAt time.Time
	heal    pace // of what others change

	heir     bool // what another proxy left is removed
	heirAt   time.Time
	heirWait time.Duration
	batch    batch
	stale    net.Flows
	trigger  []time.Time // when the changes that wait were made
}

// New checks the configuration. It asks nobody and touches nothing.
func New(cfg Config) (*Proxy, error) {
	switch {
	case cfg.NodeName == "":
		return nil, errors.New("configure service proxy: the node has no name")
	case cfg.Rest == nil || cfg.HTTP == nil || cfg.Backend == nil:
		return nil, errors.New("configure service proxy: Rest, HTTP and Backend are needed")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	p := &Proxy{
		cfg: cfg, news: make(chan news, maxQueued), wakes: make(chan struct{}, 1), questions: make(chan func()),
		model: net.NewModel(net.Node{Name: cfg.NodeName}), uids: map[net.Key]types.UID{}, told: map[net.Key][]net.Finding{},
		stale: net.Flows{}, state: newState(cfg.Mode, cfg.Settings),
	}
	if at, _, err := rest.DefaultServerUrlFor(cfg.Rest); err == nil { // who cannot be asked is told below
		p.state.host = at.Host
	}
	servers, err := newServers(cfg, counted(cfg.HTTP, p.state))
	if err != nil {
		return nil, fmt.Errorf("configure service proxy: %w", err)
	}
	for k := range servers {
		if kind(k) == serviceCIDRs && !cfg.Needs.ServiceCIDRs {
			continue
		}
		p.followers[k] = &follower{kind: kind(k), server: servers[k], out: p.news, state: p.state, log: cfg.Logger}
	}
	p.followers[services].listener = cfg.Listener
	p.checks = newChecks(cfg, p.state)
	if cfg.Flows != nil {
		p.flows = &forgetter{table: cfg.Flows, state: p.state, log: cfg.Logger, poke: make(chan struct{}, 1)}
	}
	return p, nil
}

// Run keeps the rules right until ctx ends, and then leaves them as they are.
// Nothing that the API server or the kernel does makes it fail.
func (p *Proxy) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	p.timer = time.NewTimer(time.Hour)
	p.timer.Stop()
	defer p.timer.Stop()
	defer p.end()
	defer p.owned.Wait()
	defer cancel()
	for _, f := range p.followers {
		if f != nil {
			p.owned.Go(func() { f.run(ctx) })
		}
	}
	if p.flows != nil {
		p.owned.Go(func() { p.flows.run(ctx) })
	}
	p.checks.begin(ctx, &p.owned)
	defer p.pulse.Rest()
	for {
		p.pulse.Rest()
		select {
		case <-ctx.Done():
			return nil
		case n := <-p.news:
			p.pulse.Beat()
			p.take(n)
			p.drain()
		case <-p.wakes:
			p.foreign()
		case answer := <-p.questions:
			answer()
		case <-p.timer.C:
		}
		p.turn(ctx)
	}
}

// Progress is when the loop last made progress. To wait for the API server is
// progress, and so is a call of the Backend that has time left.
func (p *Proxy) Progress() time.Time { return p.pulse.Progress() }

// end closes what the Backend holds. The rules stay.
func (p *Proxy) end() {
	if c, ok := p.backend.(closer); ok {
		c.Close()
	}
}

// drain takes what else is there already: one batch for all of it. It is bounded,
// so that who changes without end does not keep the rules from being written.
func (p *Proxy) drain() {
	for range 4 * maxQueued {
		select {
		case n := <-p.news:
			p.take(n)
		default:
			return
		}
	}
}

// foreign notes that somebody else changed the rules.
func (p *Proxy) foreign() {
	if p.sure {
		p.sure = false
		p.state.foreign()
	}
}
