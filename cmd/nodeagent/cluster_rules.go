package main

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"nodeagent/internal/config"
	svcnet "nodeagent/internal/net"
	"nodeagent/internal/net/iptables"
	"nodeagent/internal/net/ipvs"
	"nodeagent/internal/net/nftables"
)

// serviceMode is how the rules are programmed: where the file leaves it open, by
// the best that the kernel has.
func (d *daemon) serviceMode() string {
	if mode := d.cfg.Proxy.Mode; mode != "" {
		return string(mode)
	}
	if err := nftables.Probe(); nftables.IsMissing(err) {
		d.log.Warn("the kernel has no nftables that can hold the rules of services, which takes 5.9; they are made by iptables, which costs more (modprobe nf_tables and restart, or say mode: iptables)", "err", err)
		return config.ModeIPTables
	}
	return config.ModeNFTables
}

// ruler writes rules in one mode.
type ruler interface {
	Sync(context.Context, *svcnet.Table) (svcnet.Report, error)
	Apply(context.Context, *svcnet.Table, *svcnet.Diff) error
	Watch(ctx context.Context, wake func()) error
	Close()
}

// rules do around a mode's own what has to wait for it.
type rules struct {
	ruler
	mode string
	d    *daemon
}

// counted are rules of a mode that counts something for dashboards.
type counted struct {
	rules
	counter
}

type counter interface{ Counts() svcnet.Counts }

// manyEntries is from where on a look at everything leaves much behind.
const manyEntries = 1000

// Sync gives back the memory that it took: at rest there is a fraction.
func (r rules) Sync(ctx context.Context, t *svcnet.Table) (svcnet.Report, error) {
	out, err := r.ruler.Sync(ctx, t)
	if len(t.Entries) > manyEntries {
		debug.FreeOSMemory()
	}
	return out, err
}

// TakeOver is called when the rules are in force: the kernel now has what tracks
// connections, and nobody needs kube-proxy's rules, nor ours of another mode.
func (r rules) TakeOver(ctx context.Context) ([]string, error) {
	r.d.tuneConnections()
	tables, err1 := removeProxyTables(ctx)
	chains, err2 := iptables.RemoveKubeProxy(ctx)
	servers, err3 := ipvs.RemoveKubeProxy(ctx, r.d.cfg.Excluded())
	return slices.Concat(tables, chains, servers), errors.Join(err1, err2, err3, r.d.removeRulesBut(ctx, r.mode))
}

// removeProxyTables removes what kube-proxy's mode nftables left.
func removeProxyTables(ctx context.Context) ([]string, error) {
	b, err := nftables.New(nftables.Config{})
	if err != nil || nftables.IsMissing(nftables.Probe()) {
		return nil, err
	}
	defer b.Close()
	return b.TakeOver(ctx)
}

// removals take away what the daemon wrote in each mode that there is, if it did.
var removals = map[string]func(context.Context, *config.Config) error{
	config.ModeNFTables: func(ctx context.Context, _ *config.Config) error {
		b, err := nftables.New(nftables.Config{})
		if err != nil || nftables.IsMissing(nftables.Probe()) {
			return err
		}
		defer b.Close()
		return b.Remove(ctx)
	},
	config.ModeIPTables: func(ctx context.Context, _ *config.Config) error {
		b, err := iptables.New(iptables.Config{})
		if err != nil {
			return err
		}
		return b.Remove(ctx)
	},
	config.ModeIPVS: func(ctx context.Context, cfg *config.Config) error {
		b, err := ipvs.New(ipvs.Config{Exclude: cfg.Excluded()})
		if err != nil {
			return err
		}
		defer b.Close()
		return b.Remove(ctx)
	},
}

// removeRulesBut removes the rules of all modes but one.
func (d *daemon) removeRulesBut(ctx context.Context, mode string) error {
	var errs []error
	for m, remove := range removals {
		if m == mode {
			continue
		}
		if err := remove(ctx, d.cfg); err != nil {
			errs = append(errs, fmt.Errorf("remove rules of services that this node had in mode %s: %w", m, err))
		}
	}
	return errors.Join(errs...)
}

// removeTimeout bounds one try to remove rules that are not wanted any more.
const removeTimeout = 30 * time.Second

// The waits for what holds rules that are to go: a lock, most of the time.
const (
	firstRemoveWait = 30 * time.Second
	lastRemoveWait  = time.Hour
)

// removeRules takes our rules away where another program is to serve services. What
// cannot go now is tried again: rules that nobody keeps up lead to endpoints that are
// gone.
func (d *daemon) removeRules(ctx context.Context) error {
	return d.persist(ctx, func(ctx context.Context) error { return d.removeRulesBut(ctx, config.ModeNone) })
}

// persist tries until it goes well.
func (d *daemon) persist(ctx context.Context, try func(context.Context) error) error {
	for wait := firstRemoveWait; ; wait = min(2*wait, lastRemoveWait) {
		bounded, cancel := context.WithTimeout(ctx, removeTimeout)
		err := try(bounded)
		cancel()
		if err == nil || ctx.Err() != nil {
			return nil
		}
		d.log.Warn("leave rules of services for now", "again", wait, "err", err)
		if !linger(ctx, wait) {
			return nil
		}
	}
}
