package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"nodeagent/internal/cert"
	"nodeagent/internal/config"
	svcnet "nodeagent/internal/net"
	"nodeagent/internal/net/conntrack"
	"nodeagent/internal/net/iptables"
	"nodeagent/internal/net/ipvs"
	"nodeagent/internal/net/nftables"
	"nodeagent/internal/net/proxy"
	"nodeagent/internal/server"
	"nodeagent/internal/status"
)

// fitServices fits what makes service addresses work. It needs nothing of the pods'
// rooms, and they nothing of it: whichever hangs, the other goes on.
func (d *daemon) fitServices() error {
	if d.cfg.Proxy != nil && d.cfg.Proxy.Mode == config.ModeNone {
		d.parts = append(d.parts, part{"rules of services", d.removeRules})
	}
	if !d.cfg.Services() {
		return nil
	}
	binding, err := d.cfg.Binding()
	if err != nil {
		return err
	}
	api, h, events, err := d.serviceClient()
	if err != nil {
		return err
	}
	mode := d.serviceMode()
	var listener proxy.Listener
	if d.servicesTold() {
		listener = d.cluster.services
	}
	d.services, err = proxy.New(proxy.Config{
		Listener: listener,
		NodeName: d.cfg.NodeName, Rest: api, HTTP: h, Mode: mode,
		Backend: func(f proxy.Facts) (proxy.Backend, error) { return d.backend(mode, binding, f) },
		Needs:   proxy.Needs{Addrs: binding.Primary && !binding.All || mode != config.ModeNFTables, PodCIDRs: binding.NodeCIDR, ServiceCIDRs: mode != config.ModeIPVS},
		Flows:   conntrack.Table{}, Teller: serviceEvents{events}, Serve: server.ServePort,
		Settings: d.cfg.Proxy, Process: processFigures(), Logger: d.log,
	})
	if err != nil {
		return err
	}
	if d.cfg.WantsLocalhost() {
		d.log.Warn("node ports are not served at 127.0.0.1, though iptables.localhostNodePorts asks for it: the kernel would have to route loopback addresses (CVE-2020-8558); call them at an address of the node, and say false")
	}
	p := d.cfg.Proxy
	d.parts = append(d.parts, part{"rules of services", d.services.Run},
		d.openPort("health port of services", p.HealthzBindAddress, d.services.Health()),
		d.openPort("metrics port of services", p.MetricsBindAddress, d.services.Metrics()))
	return nil
}

// servicesTold tells whether the rules' watch of Services also serves containers'
// variables: where both are asked for of the same API server as the same node.
func (d *daemon) servicesTold() bool {
	return d.cluster != nil && d.cfg.Services() && d.cfg.Proxy.ClientConnection.Kubeconfig == ""
}

// backend programs the rules in the mode that is asked for. A mode that comes to
// it needs a case here, and in removals.
func (d *daemon) backend(mode string, binding config.ProxyBinding, facts proxy.Facts) (proxy.Backend, error) {
	pods, at := binding.Pods, nodePorts(binding, facts, bindAddress(d.cfg))
	if binding.NodeCIDR {
		pods = facts.PodCIDRs
	}
	var through []string
	if binding.Interface != "" {
		through = []string{binding.Interface}
	}
	keep := d.cfg.Proxy.Conntrack.TCPBeLiberal
	switch mode {
	case config.ModeNFTables:
		of := &d.cfg.Proxy.NFTables
		b, err := nftables.New(nftables.Config{
			Pods: pods, PodInterfaces: through, KeepInvalid: keep, NodePorts: at,
			MasqueradeAll: of.MasqueradeAll, MasqueradeBit: of.MasqueradeBit, Own: &d.ruleSockets,
		})
		return counted{rules{b, mode, d}, b}, err
	case config.ModeIPTables:
		of := &d.cfg.Proxy.IPTables
		b, err := iptables.New(iptables.Config{
			Pods: pods, PodInterfaces: through, KeepInvalid: keep, NodePorts: at,
			MasqueradeAll: of.MasqueradeAll, MasqueradeBit: of.MasqueradeBit, Own: &d.ruleSockets,
		})
		return counted{rules{b, mode, d}, b}, err
	case config.ModeIPVS:
		b, err := d.virtualServers(ipvs.Config{
			Addrs: primary(facts.Addrs, bindAddress(d.cfg)), Pods: pods, PodInterfaces: through, KeepInvalid: keep, NodePorts: at,
		})
		return virtual{rules{b, mode, d}, b}, err
	default:
		return nil, fmt.Errorf("program services in mode %q: it is not built", mode)
	}
}

// bindAddress is what the operator takes for the node's primary address, or nil.
func bindAddress(cfg *config.Config) []netip.Addr {
	a, err := netip.ParseAddr(cfg.Proxy.BindAddress)
	if err != nil || a.IsUnspecified() {
		return nil
	}
	return []netip.Addr{a.Unmap()}
}

// primary are the node's primary addresses: what the operator takes for one stands
// for that of its family.
func primary(node, bound []netip.Addr) []netip.Addr {
	out := slices.Clone(bound)
	for _, a := range node {
		if !slices.ContainsFunc(bound, func(b netip.Addr) bool { return a.Is4() == b.Is4() }) {
			out = append(out, a)
		}
	}
	return out
}

// nodePorts are the addresses at which node ports are served; none: all.
func nodePorts(b config.ProxyBinding, facts proxy.Facts, bound []netip.Addr) []netip.Prefix {
	if b.All {
		return nil
	}
	out := slices.Clone(b.NodePorts)
	if b.Primary {
		for _, a := range primary(facts.Addrs, bound) {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	if len(out) == 0 { // at none: loopback addresses never are served
		out = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("::1/128")}
	}
	return out
}

// tuneConnections sets how much the kernel remembers of connections.
func (d *daemon) tuneConnections() {
	t := &d.cfg.Proxy.Conntrack
	most, chosen := d.cfg.Connections(runtime.NumCPU())
	limits := conntrack.Limits{
		Max: most, AtLeast: !chosen, Liberal: t.TCPBeLiberal,
		Established: t.TCPEstablishedTimeout.Duration, CloseWait: t.TCPCloseWaitTimeout.Duration,
		UDP: t.UDPTimeout.Duration, UDPStream: t.UDPStreamTimeout.Duration,
	}
	if err := limits.Tune("/"); err != nil {
		d.log.Warn("leave settings of the kernel as they are", "err", err)
	}
}

// serviceKubeconfig is the file by which services are watched; none: the node's own.
// kube-proxy's configuration names one of its pod: missing tells that it is not here,
// while there is the node's.
func serviceKubeconfig(cfg *config.Config) (path string, missing bool) {
	path = cfg.Proxy.ClientConnection.Kubeconfig
	if path == "" || cfg.Cluster == nil {
		return path, false
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return "", true
	}
	return path, false
}

// serviceClient is the API server for who watches services: by the kubeconfig of
// its own, if it has one, else as the node.
func (d *daemon) serviceClient() (*rest.Config, *http.Client, *status.Events, error) {
	path, missing := serviceKubeconfig(d.cfg)
	if missing {
		d.log.Warn("watch services by the node's own credentials: the file of clientConnection.kubeconfig is not there; leave the field out", "path", d.cfg.Proxy.ClientConnection.Kubeconfig)
	}
	if d.cluster != nil && path == "" {
		return d.cluster.api, d.cluster.http, d.cluster.events, nil
	}
	if path == "" {
		path = d.cfg.Cluster.Kubeconfig // of a daemon that is nothing else
	}
	client, err := cert.NewClient(cert.ClientConfig{
		Kubeconfig: path, Dir: filepath.Join(d.cfg.Agent.StateDir, "proxy-pki"), NodeName: d.cfg.NodeName, Logger: d.log,
	})
	if err != nil {
		return nil, nil, nil, err
	}
	d.parts = append(d.parts, part{"credentials of services", client.Run})
	api := client.Config()
	h, err := rest.HTTPClientFor(api)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("make the API server's client: %w", err)
	}
	if d.cluster != nil {
		return api, h, d.cluster.events, nil
	}
	core, err := coreClient(api, h)
	if err != nil {
		return nil, nil, nil, err
	}
	events, err := status.NewEvents(status.EventsConfig{Sink: status.NewClient(core), NodeName: d.cfg.NodeName, QPS: eventQPS, Burst: eventBurst, Logger: d.log})
	d.parts = append(d.parts, part{"events", events.Run})
	return api, h, events, err
}

// How fast a daemon tells of services that is nothing else.
const (
	eventQPS   = 5
	eventBurst = 25
)

// serviceEvents tells the cluster of what is wrong with a Service.
type serviceEvents struct{ *status.Events }

// Service implements proxy.Teller.
func (e serviceEvents) Service(k svcnet.Key, uid types.UID, reason, message string) {
	e.Events.Service(types.NamespacedName{Namespace: k.Namespace, Name: k.Name}, uid, "Warning", reason, message)
}

// The waits for a port that somebody else has, who may be a kube-proxy that ends.
const (
	firstPortWait = time.Second
	lastPortWait  = time.Minute
)

// openPort answers on a port that is not worth the daemon's end: it is tried again
// while it is taken, unless the operator wants it hard.
func (d *daemon) openPort(name, addr string, h http.Handler) part {
	return part{name, func(ctx context.Context) error {
		if _, port, err := net.SplitHostPort(addr); err != nil || port == "0" {
			return nil
		}
		wait, told := firstPortWait, ""
		for {
			err := server.ServePort(ctx, addr, h, nil)
			if ctx.Err() != nil {
				return nil
			}
			if d.cfg.Proxy.BindAddressHardFail {
				return fmt.Errorf("%w; is a kube-proxy running here?", err)
			}
			if why := fmt.Sprint(err); told != why {
				told = why
				d.log.Warn("try again for a port; is a kube-proxy running here?", "port", name, "err", err)
			}
			if !linger(ctx, wait) {
				return nil
			}
			wait = min(2*wait, lastPortWait)
		}
	}}
}
