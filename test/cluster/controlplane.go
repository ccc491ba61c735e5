package cluster

import (
	"context"
	"errors"
	"path/filepath"
	"slices"

	"nodeagent/test/bed"
)

// startAll starts the four programs, each when what it cannot do without is
// there: none has a way to hear of it later than by trying again each second.
func (c *Cluster) startAll(ctx context.Context) error {
	c.Etcd = c.component(c.tools, "etcd", notified, c.etcdFlags())
	c.APIServer = c.component(c.tools, "kube-apiserver", serves(c.Server()+"/readyz"), slices.Concat(c.apiServerFlags(), c.opts.APIServer))
	c.ControllerManager = c.component(c.tools, "kube-controller-manager", answers("https://127.0.0.1:10257/healthz"),
		slices.Concat(c.managerFlags(), c.opts.ControllerManager))
	c.Scheduler = c.component(c.tools, "kube-scheduler", answers("https://127.0.0.1:10259/readyz"),
		slices.Concat(c.schedulerFlags(), c.opts.Scheduler))
	for _, p := range []*Component{c.Etcd, c.APIServer} {
		if err := c.stage(p.Name, func() error { return p.Start(ctx) }); err != nil {
			return err
		}
	}
	return c.startClients(ctx)
}

// startClients starts the API server's two clients side by side.
func (c *Cluster) startClients(ctx context.Context) error {
	both := []*Component{c.ControllerManager, c.Scheduler}
	for _, p := range both {
		if err := p.launch(); err != nil {
			return err
		}
	}
	for _, p := range both {
		if err := c.stage(p.Name, func() error { return p.waitReady(ctx) }); err != nil {
			return err
		}
	}
	return nil
}

// ServerBack starts the API server again after a Kill, with the controllers and the
// scheduler anew: they try again after up to a minute (client-go's reflector), longer
// each time, and until then pods are neither made nor bound.
func (c *Cluster) ServerBack(ctx context.Context) error {
	if err := errors.Join(c.ControllerManager.Kill(), c.Scheduler.Kill()); err != nil {
		return err
	}
	if err := c.APIServer.Start(ctx); err != nil {
		return err
	}
	return c.startClients(ctx)
}

// component is a program of a directory, not yet started. Another of its name
// takes its place.
func (c *Cluster) component(tools, name string, ready func(context.Context, *Component) error, flags []string) *Component {
	p := &Component{Name: name, c: c, ready: ready, argv: append([]string{filepath.Join(tools, name)}, flags...)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.components[name] = p
	return p
}

// serves waits for the API server: its notice says that it listens, and only its
// health that the roles and namespaces which it makes itself are made.
func serves(url string) func(context.Context, *Component) error {
	return func(ctx context.Context, p *Component) error {
		if err := notified(ctx, p); err != nil {
			return err
		}
		return answers(url)(ctx, p)
	}
}

func (c *Cluster) etcdFlags() []string {
	return []string{
		"--name=bed", "--data-dir=" + filepath.Join(c.dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=bed=http://127.0.0.1:2380",
		"--log-level=warn",
	}
}

func (c *Cluster) apiServerFlags() []string {
	return []string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=" + bed.NodeIP, "--advertise-address=" + bed.NodeIP, "--secure-port=" + apiPort,
		"--tls-cert-file=" + c.file("apiserver.crt"), "--tls-private-key-file=" + c.file("apiserver.key"),
		"--client-ca-file=" + c.file("ca.crt"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--enable-bootstrap-token-auth",
		"--anonymous-auth=true", // who joins a cluster asks for cluster-info by it
		"--allow-privileged",
		"--service-cluster-ip-range=" + ServiceCIDR,
		"--service-account-issuer=https://kubernetes.default.svc." + Domain,
		"--service-account-key-file=" + c.file("sa.pub"), "--service-account-signing-key-file=" + c.file("sa.key"),
		"--kubelet-client-certificate=" + c.file("kubelet-client.crt"), "--kubelet-client-key=" + c.file("kubelet-client.key"),
		// A node's name is in no DNS here.
		"--kubelet-preferred-address-types=InternalIP",
		"--requestheader-client-ca-file=" + c.file("front-proxy-ca.crt"), "--requestheader-allowed-names=" + frontProxy.Name,
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + c.file("front-proxy.crt"), "--proxy-client-key-file=" + c.file("front-proxy.key"),
		"--enable-aggregator-routing",
	}
}

func (c *Cluster) managerFlags() []string {
	kubeconfig := filepath.Join(c.dir, "kube-controller-manager.kubeconfig")
	return []string{
		"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1", "--tls-cert-file=" + c.file("health.crt"), "--tls-private-key-file=" + c.file("health.key"),
		"--leader-elect=false", "--use-service-account-credentials",
		// It makes an account and a token for each of its controllers first: with
		// its usual 20 requests a second that is four seconds of every start.
		"--kube-api-qps=1000", "--kube-api-burst=1000",
		"--controllers=*,bootstrap-signer-controller,token-cleaner-controller",
		"--allocate-node-cidrs", "--cluster-cidr=" + PodCIDR, "--service-cluster-ip-range=" + ServiceCIDR,
		"--root-ca-file=" + c.file("ca.crt"), "--client-ca-file=" + c.file("ca.crt"),
		"--cluster-signing-cert-file=" + c.file("ca.crt"), "--cluster-signing-key-file=" + c.file("ca.key"),
		"--service-account-private-key-file=" + c.file("sa.key"),
		"--requestheader-client-ca-file=" + c.file("front-proxy-ca.crt"),
	}
}

func (c *Cluster) schedulerFlags() []string {
	kubeconfig := filepath.Join(c.dir, "kube-scheduler.kubeconfig")
	return []string{
		"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1", "--tls-cert-file=" + c.file("health.crt"), "--tls-private-key-file=" + c.file("health.key"),
		"--leader-elect=false",
	}
}

func (c *Cluster) file(name string) string { return filepath.Join(c.pki(), name) }
