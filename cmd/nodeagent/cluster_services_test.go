package main

import (
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	kubeproxyv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"

	"nodeagent/internal/config"
	"nodeagent/internal/net/proxy"
)

// TestPrimaryNodePorts: the operator's address stands for the Node's of its family,
// and node ports stay where they are in the other one.
func TestPrimaryNodePorts(t *testing.T) {
	at := func(s ...string) []netip.Addr {
		var out []netip.Addr
		for _, a := range s {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	for _, c := range []struct {
		node, bound []netip.Addr
		want        []string
	}{
		{at("10.0.0.1", "fd00::1"), nil, []string{"10.0.0.1/32", "fd00::1/128"}},
		{at("10.0.0.1", "fd00::1"), at("10.9.9.9"), []string{"10.9.9.9/32", "fd00::1/128"}},
		{at("10.0.0.1", "fd00::1"), at("fd00::9"), []string{"fd00::9/128", "10.0.0.1/32"}},
		{nil, at("10.9.9.9"), []string{"10.9.9.9/32"}},
	} {
		var got []string
		for _, p := range nodePorts(config.ProxyBinding{Primary: true}, proxy.Facts{Addrs: c.node}, c.bound) {
			got = append(got, p.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("node %v, bound to %v: node ports are at %v, want %v", c.node, c.bound, got, c.want)
		}
	}
}

// TestServiceKubeconfig: a file of kube-proxy's pod is no reason to serve nobody on a
// node that has credentials.
func TestServiceKubeconfig(t *testing.T) {
	there := t.TempDir() // whatever is there
	gone := filepath.Join(there, "kubeconfig.conf")
	node := &config.Cluster{Kubeconfig: "/etc/kubernetes/kubelet.conf"}
	for _, c := range []struct {
		named   string
		node    *config.Cluster
		path    string
		missing bool
	}{
		{"", node, "", false},
		{there, node, there, false},
		{gone, node, "", true},
		{gone, nil, gone, false}, // there is nothing else
	} {
		p := &kubeproxyv1alpha1.KubeProxyConfiguration{}
		p.ClientConnection.Kubeconfig = c.named
		if path, missing := serviceKubeconfig(&config.Config{Proxy: p, Cluster: c.node}); path != c.path || missing != c.missing {
			t.Errorf("%q where the node has credentials %v: %q, missing %v", c.named, c.node != nil, path, missing)
		}
	}
}
