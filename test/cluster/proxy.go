package cluster

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"nodeagent/test/bed"
)

// KubeProxy starts kube-proxy for a node, which must be registered, in a mode:
// "iptables" or "nftables", the default. It is what the daemon's own rules of
// services are compared with, and makes service addresses work beside kubelet.
func (c *Cluster) KubeProxy(ctx context.Context, node, mode string) (*Component, error) {
	tools, err := Peers(ctx, c.opts.Talk)
	if err != nil {
		return nil, err
	}
	kubeconfig, err := c.Kubeconfig("kube-proxy", Identity{Name: "system:kube-proxy"})
	if err != nil {
		return nil, err
	}
	config := filepath.Join(c.dir, "kube-proxy.yaml")
	if err := os.WriteFile(config, []byte(proxyConfig(node, cmp.Or(mode, "nftables"), kubeconfig)), 0o600); err != nil {
		return nil, err
	}
	p := c.component(tools, "kube-proxy", answers("http://127.0.0.1:10256/healthz"), []string{"--config=" + config})
	return p, p.Start(ctx)
}

// OwnServices are the lines of a KubeProxyConfiguration (bed.AgentOptions.Proxy) with
// which a daemon programs services itself, in a mode. As with kube-proxy, what belongs
// to the whole machine stays as it is.
func OwnServices(mode string) string {
	return fmt.Sprintf(`mode: %s
clusterCIDR: %s
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`, mode, PodCIDR)
}

// proxyConfig leaves alone what is the host's and not the bed's: the size of the
// conntrack table, which belongs to no namespace, and an oom_score_adj that not
// every host lets a process have.
func proxyConfig(node, mode, kubeconfig string) string {
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: %s
hostnameOverride: %s
clientConnection: {kubeconfig: %q}
clusterCIDR: %s
bindAddress: %s
oomScoreAdj: 0
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`, mode, node, kubeconfig, PodCIDR, bed.NodeIP)
}
