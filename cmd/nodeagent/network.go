package main

import (
	"context"

	"nodeagent/internal/cri"
	"nodeagent/internal/net/podnet"
)

func (d *daemon) fitNetwork() (err error) {
	n := d.cfg.Agent.PodNetwork
	d.network, err = podnet.New(podnet.Config{
		StateDir: d.cfg.Agent.StateDir, RunDir: d.cfg.Agent.RunDir,
		CNIConfDir: n.CNIConfDir, CNIBinDir: n.CNIBinDir,
		CIDRs: d.cidrs(), Bridge: n.Bridge, MTU: n.MTU, Logger: d.log,
		Lost:    func(sandbox string) { d.runtime.LoseNetwork(sandbox) },
		Changed: func() { d.set.WakeAll(); d.healthChanged() },
		Vacated: d.rangesVacated, Services: &d.ruleSockets,
	})
	d.parts = append(d.parts, part{"pod network", d.network.Run})
	return err
}

// sandboxNetwork fits podnet to what the runtime asks of a network.
type sandboxNetwork struct{ *podnet.Network }

func (n sandboxNetwork) Setup(ctx context.Context, r cri.NetRequest) (cri.NetResult, error) {
	result, err := n.Network.Setup(ctx, netRequest(r))
	return cri.NetResult{Addrs: result.Addrs}, err
}

func (n sandboxNetwork) Teardown(ctx context.Context, r cri.NetRequest) error {
	return n.Network.Teardown(ctx, netRequest(r))
}

func netRequest(r cri.NetRequest) podnet.Request {
	out := podnet.Request{
		SandboxID: r.SandboxID, Netns: r.Netns, Namespace: r.Namespace, Name: r.Name, UID: r.UID,
		Annotations: r.Annotations,
	}
	for _, p := range r.Ports {
		out.Ports = append(out.Ports, podnet.PortMapping(p))
	}
	return out
}
