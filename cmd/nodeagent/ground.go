package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"nodeagent/internal/config"
	svcnet "nodeagent/internal/net"
	"nodeagent/internal/net/conntrack"
	"nodeagent/internal/net/iptables"
	"nodeagent/internal/net/ipvs"
	"nodeagent/internal/net/nftables"
	"nodeagent/internal/net/proxy"
)

// helds read what the kernel holds of a mode's rules, whoever wrote them.
var helds = map[string]func(context.Context, *config.Config) ([]svcnet.Held, error){
	config.ModeNFTables: func(ctx context.Context, _ *config.Config) ([]svcnet.Held, error) {
		b, err := nftables.New(nftables.Config{})
		if err != nil {
			return nil, err
		}
		defer b.Close()
		return b.Held(ctx)
	},
	config.ModeIPTables: func(ctx context.Context, _ *config.Config) ([]svcnet.Held, error) {
		b, err := iptables.New(iptables.Config{})
		if err != nil {
			return nil, err
		}
		return b.Held(ctx)
	},
	config.ModeIPVS: func(ctx context.Context, cfg *config.Config) ([]svcnet.Held, error) {
		b, err := ipvs.New(ipvs.Config{Exclude: cfg.Excluded()})
		if err != nil {
			return nil, err
		}
		defer b.Close()
		return b.Held(ctx)
	},
}

// groundFor looks at the node for a service of which the daemon told.
func (n *node) groundFor(ctx context.Context, a proxy.Answer) svcnet.Ground {
	g := svcnet.Ground{Mode: a.Loop.Mode}
	var at []svcnet.Address
	for _, f := range a.Facts.Addresses {
		if x, err := svcnet.ParseAddress(f.Address); err == nil {
			at = append(at, x)
		}
	}
	if read := helds[g.Mode]; read != nil && len(at) > 0 {
		all, err := read(ctx, n.cfg)
		if err != nil {
			g.Unread = err.Error()
		}
		g.Held = slices.DeleteFunc(all, func(h svcnet.Held) bool {
			return !slices.ContainsFunc(at, func(x svcnet.Address) bool { return about(h, x) })
		})
	}
	n.lookAround(ctx, &g, at)
	return g
}

// about tells whether what the kernel holds is of an address: of a node port at any address
// of the node, and of all ports of one that is closed as a whole.
func about(h svcnet.Held, a svcnet.Address) bool {
	x, err := svcnet.ParseAddress(h.Address)
	if err != nil {
		return h.Covers(a.IP)
	}
	return x == a || a.NodePort() && x.Port == a.Port && x.Proto == a.Proto && x.IP.Is4() == a.IP.Is4() && h.Service == ""
}

// groundOf looks at the node for a service of which there is only the name.
func (n *node) groundOf(ctx context.Context, key svcnet.Key) svcnet.Ground {
	modes := []string{config.ModeNFTables, config.ModeIPTables, config.ModeIPVS}
	if p := n.cfg.Proxy; p != nil && helds[string(p.Mode)] != nil {
		modes = []string{string(p.Mode)}
	}
	g := svcnet.Ground{Mode: modes[0]}
	var errs []error
	for _, mode := range modes {
		all, err := helds[mode](ctx, n.cfg)
		if err != nil {
			errs = append(errs, fmt.Errorf("mode %s: %w", mode, err))
		}
		all = slices.DeleteFunc(all, func(h svcnet.Held) bool { return !named(h, key) })
		if len(all) > 0 {
			g.Mode, g.Held, errs = mode, all, nil
			break
		}
	}
	if err := errors.Join(errs...); err != nil && len(errs) == len(modes) {
		g.Unread = err.Error()
	}
	var at []svcnet.Address
	for _, h := range g.Held {
		if a, err := svcnet.ParseAddress(h.Address); err == nil {
			at = append(at, a)
		}
	}
	n.lookAround(ctx, &g, at)
	return g
}

// named tells whether what the kernel holds is of the service, by its comment.
func named(h svcnet.Held, key svcnet.Key) bool {
	rest, ok := strings.CutPrefix(h.Service, key.String())
	return ok && (strings.HasPrefix(rest, ":") || strings.HasPrefix(rest, " "))
}

// settings are what of the kernel's decides whether packets get through.
var settings = []string{
	"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv4.conf.all.rp_filter", "net.bridge.bridge-nf-call-iptables",
	"net.netfilter.nf_conntrack_count", "net.netfilter.nf_conntrack_max",
}

// lookAround adds what is so whatever the rules are. What cannot be read is left out.
func (n *node) lookAround(ctx context.Context, g *svcnet.Ground, at []svcnet.Address) {
	g.Settings = map[string]string{}
	for _, name := range settings {
		if b, err := os.ReadFile(filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))); err == nil {
			g.Settings[name] = strings.TrimSpace(string(b))
		}
	}
	if b, err := nftables.New(nftables.Config{}); err == nil {
		g.Drops, _ = b.ForwardDrops(ctx)
		b.Close()
	}
	legacy, _ := iptables.ForwardDrops(ctx)
	g.Drops = append(g.Drops, legacy...)
	if len(at) > 0 {
		if count, err := (conntrack.Table{}).Count(ctx, at); err == nil {
			g.Connections = &count
		}
	}
}
