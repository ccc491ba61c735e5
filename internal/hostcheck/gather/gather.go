// Package gather owns the looks at a host from which internal/hostcheck judges
// it. Each look is one probe: they run side by side, each has 2 s or what Config says, and one that
// fails, hangs or may not look is named among what was not seen.
//
// It changes nothing that others can see: what has to be tried (an overlay, an
// interface, a table) is tried in namespaces that nobody else has and that end
// with the try. Gather may be called from any goroutine; a probe that hangs in
// the kernel, on a dead file server say, keeps its goroutine until it wakes.
package gather

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"nodeagent/internal/hostcheck"
)

// Limit is the time of one probe where Config says nothing.
const Limit = 2 * time.Second

// grace is for what a probe does after its time: to say so.
const grace = time.Second

// Config says where to look and what the daemon was told.
type Config struct {
	Host hostcheck.Config // what the judgement needs of the configuration

	Limit time.Duration // of one probe, default Limit

	Containerd string // path of its socket
	RunDir     string
	Dirs       map[string]string // by use, as "root-dir": what the daemon writes to
	PodsDir    string            // pods' directories, one a UID
	Resolv     string            // the resolver configuration that pods get; "" for none
	Bridge     string            // name of the daemon's bridge
	CNIConfDir string
	CNIBinDir  string
	NodeName   string
	NodeIPs    []string
	PodPids    int64

	// About asks containerd what it is; Own lists the pods that are ours by its
	// records. Both end with their context.
	About func(context.Context) (About, error)
	Own   func(context.Context) (map[string]bool, error)
}

// About is what containerd says of itself.
type About struct {
	hostcheck.Runtime
	ImageRoot string // where the layers of the snapshotter are; "" if it does not say
}

// probe is one look. What it saw comes as a function that puts it in place, so
// that a probe that is late writes nowhere.
type probe struct {
	what string
	look func(context.Context) (see, error)
}

type see = func(*hostcheck.Facts)

// Gather looks at everything; for a daemon that has no pods, at what services need.
func Gather(ctx context.Context, c Config) hostcheck.Facts {
	g := newGatherer(c)
	if c.Host.ProxyOnly {
		return run(ctx, g.Config, []probe{
			{"kernel", g.kernel}, {"interfaces and firewall in a namespace", g.tryNetwork}, {"listening ports", g.listeners},
			{"network", g.network}, {"firewall rules", g.firewall}, {"systemd", g.systemd}, {"node", g.node},
		})
	}
	return run(ctx, g.Config, slices.Concat([]probe{
		{"kernel", g.kernel}, {"overlay mount", g.tryOverlay}, {"interfaces and firewall in a namespace", g.tryNetwork},
		{"privileges", g.privilege}, {"cgroups", g.cgroups}, {"containerd", g.runtime}, {"processes of agents", g.agents},
		{"pods of others", g.strangers}, {"listening ports", g.listeners}, {"network", g.network}, {"firewall rules", g.firewall},
		{"CNI configuration", g.cni}, {"limits", g.limits}, {"swap", g.swaps}, {"systemd", g.systemd}, {"node", g.node},
	}, g.fuseProbes(), g.diskProbes()))
}

// Harm looks only at what the daemon would harm by its start: other agents and
// their pods. It is quick, and needs neither containerd nor a child process.
// One that has no pods harms nobody.
func Harm(ctx context.Context, c Config) hostcheck.Facts {
	g := newGatherer(c)
	if c.Host.ProxyOnly {
		return hostcheck.Facts{Config: c.Host}
	}
	return run(ctx, g.Config, []probe{{"processes of agents", g.agents}, {"pods of others", g.strangers}})
}

type gatherer struct{ Config }

func newGatherer(c Config) *gatherer {
	c.Limit = cmp.Or(c.Limit, Limit)
	return &gatherer{c}
}

// run runs the probes side by side and waits for each at most its time.
func run(ctx context.Context, c Config, probes []probe) hostcheck.Facts {
	type answer struct {
		see see
		err error
	}
	ctx, cancel := context.WithTimeout(ctx, c.Limit)
	defer cancel()
	answers := make([]chan answer, len(probes))
	for i, p := range probes {
		answers[i] = make(chan answer, 1)
		go func() {
			s, err := p.look(ctx)
			answers[i] <- answer{s, err}
		}()
	}
	f := hostcheck.Facts{Config: c.Host}
	late := time.NewTimer(c.Limit + grace)
	defer late.Stop()
	expired := false
	for i, p := range probes {
		var a answer
		if !expired {
			select {
			case a = <-answers[i]:
			case <-late.C:
				expired = true
			}
		}
		if expired {
			select {
			case a = <-answers[i]:
			default:
				a.err = silence(c.Limit)
			}
		}
		if a.see != nil {
			a.see(&f)
		}
		for _, why := range lines(ctx, a.err, c.Limit) {
			f.Unseen = append(f.Unseen, hostcheck.Unseen{What: p.what, Why: why})
		}
	}
	return f
}

func silence(limit time.Duration) error { return fmt.Errorf("no answer within %v", limit) }

func lines(ctx context.Context, err error, limit time.Duration) []string {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && errors.Is(err, context.DeadlineExceeded) { // else it is somebody's shorter time
		return []string{silence(limit).Error()}
	}
	return strings.Split(err.Error(), "\n")
}

// errNotRoot is why a probe did not look.
var errNotRoot = errors.New("needs root")

// prefixes are the pods' ranges.
func (g *gatherer) prefixes() []netip.Prefix {
	var all []netip.Prefix
	for _, s := range g.Host.CIDRs {
		if p, err := netip.ParsePrefix(s); err == nil {
			all = append(all, p.Masked())
		}
	}
	return all
}
