package main

import (
	"context"
	"errors"
	"slices"

	"nodeagent/internal/config"
	"nodeagent/internal/net/iptables"
	"nodeagent/internal/net/ipvs"
)

// virtualServers programs services by IPVS, with what only the configuration says.
// Its fixed rules are of the flavour of iptables in which the node's other rules are.
func (d *daemon) virtualServers(c ipvs.Config) (*ipvs.Backend, error) {
	d.log.Warn("Kubernetes is about to drop the mode ipvs; nftables serves services with less")
	of, base := &d.cfg.Proxy.IPVS, &d.cfg.Proxy.IPTables
	c.Scheduler, c.StrictARP, c.Exclude = of.Scheduler, of.StrictARP, d.cfg.Excluded()
	c.TCP, c.TCPFin, c.UDP = of.TCPTimeout.Duration, of.TCPFinTimeout.Duration, of.UDPTimeout.Duration
	c.MasqueradeAll, c.MasqueradeBit = base.MasqueradeAll, base.MasqueradeBit
	c.Flavour = func(ctx context.Context) (string, error) {
		f, err := iptables.Detect(ctx)
		return string(f), err
	}
	return ipvs.New(c)
}

// virtual do around virtual servers what has to wait for them.
type virtual struct {
	rules
	servers *ipvs.Backend
}

// TakeOver is called when the servers are in force: nobody needs kube-proxy's rules,
// which look into its sets, nor ours of another mode, which come first. Its device is
// ours now.
func (v virtual) TakeOver(ctx context.Context) ([]string, error) {
	v.d.tuneConnections()
	tables, err1 := removeProxyTables(ctx)
	chains, err2 := iptables.RemoveKubeProxy(ctx)
	sets, err3 := v.servers.TakeOver(ctx)
	return slices.Concat(tables, chains, sets), errors.Join(err1, err2, err3, v.d.removeRulesBut(ctx, config.ModeIPVS))
}
