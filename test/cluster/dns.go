package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nodeagent/test/bed"
)

// dns is as whom CoreDNS asks.
var dns = Identity{Name: "system:coredns"}

// CoreDNS starts CoreDNS as a process on the node's address, which is what
// clusterDNS of a node in the bed names: it needs no pod, and so no agent that
// works. It knows the names of the cluster and no others.
func (c *Cluster) CoreDNS(ctx context.Context) (*Component, error) {
	tools, err := DNS(ctx, c.opts.Talk)
	if err != nil {
		return nil, err
	}
	if err := c.create(ctx, "/apis/rbac.authorization.k8s.io/v1/clusterroles", dnsRole()); err != nil {
		return nil, err
	}
	if err := c.create(ctx, bindings, binding("bed:coredns", "bed:coredns", rbacv1.UserKind, dns.Name)); err != nil {
		return nil, err
	}
	kubeconfig, err := c.Kubeconfig("coredns", dns)
	if err != nil {
		return nil, err
	}
	corefile := filepath.Join(c.dir, "Corefile")
	if err := os.WriteFile(corefile, []byte(dnsConfig(kubeconfig)), 0o600); err != nil {
		return nil, err
	}
	p := c.component(tools, "coredns", names, []string{"-conf", corefile})
	return p, p.Start(ctx)
}

// Resolver asks CoreDNS, from outside of the bed.
func (c *Cluster) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return c.bed.Connect(ctx, network, net.JoinHostPort(bed.NodeIP, "53"))
	}}
}

// names waits until CoreDNS knows the cluster, and then until it has named the API
// server: it says that it is ready a moment before it listens.
func names(ctx context.Context, p *Component) error {
	if err := answers("http://127.0.0.1:8181/ready")(ctx, p); err != nil {
		return err
	}
	for {
		_, err := p.c.Resolver().LookupHost(ctx, "kubernetes.default.svc."+Domain+".")
		if err == nil {
			return nil
		}
		select {
		case <-p.Exited():
			return fmt.Errorf("%s ended before it was ready: %v\n%s", p.Name, p.Err(), p.LogTail(30))
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to be ready: %w\n%s", p.Name, err, p.LogTail(30))
		default:
			bed.Pause(ctx, pollEvery)
		}
	}
}

func dnsConfig(kubeconfig string) string {
	return fmt.Sprintf(`.:53 {
    bind %s
    errors
    ready 127.0.0.1:8181
    kubernetes %s in-addr.arpa ip6.arpa {
        kubeconfig %s
        pods insecure
        ttl 5
    }
}
`, bed.NodeIP, Domain, kubeconfig)
}

func dnsRole() *rbacv1.ClusterRole {
	see := []string{"list", "watch"}
	return &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "bed:coredns"},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"services", "pods", "namespaces"}, Verbs: see},
			{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: see},
		},
	}
}
