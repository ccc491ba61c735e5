package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"nodeagent/internal/cert"
	"nodeagent/internal/config"
	"nodeagent/internal/durable"
	apinode "nodeagent/internal/node"
	"nodeagent/internal/node/machine"
	"nodeagent/internal/object"
	"nodeagent/internal/pod"
	"nodeagent/internal/pod/validate"
	"nodeagent/internal/source"
	"nodeagent/internal/status"
)

// cluster is what the daemon of a cluster's node has beside that of one that
// stands alone, which has none of it.
type cluster struct {
	client *cert.Client
	api    *rest.Config // for what shares the connections of http
	http   *http.Client
	rate   *rate.Limiter // of kubeAPIQPS; nil: nobody asked for one

	machine  machine.Machine
	capacity corev1.ResourceList
	reserved pod.Reserved

	events   *status.Events
	objects  *object.Store
	services *object.Services
	nodes    *apinode.Client
	node     *apinode.Node
	facts    nodeFacts
	ranges   podRanges
	pods     *source.API
	writer   *status.Writer
	server   serverPods
	problems latestSnapshot

	name  string
	known chan struct{} // closed when the Node was seen
	once  sync.Once     // of known
}

// fitCluster makes what the others need of the API server: none of it asks it yet.
func (d *daemon) fitCluster() (err error) {
	if d.cfg.Cluster == nil {
		return nil
	}
	c := &cluster{name: d.cfg.NodeName, known: make(chan struct{}), problems: latestSnapshot{say: "the API server is not heard"}}
	c.client, err = cert.NewClient(cert.ClientConfig{
		Kubeconfig: d.cfg.Cluster.Kubeconfig, Bootstrap: d.cfg.Cluster.Bootstrap, Dir: d.cfg.Cluster.CertDir,
		NodeName: d.cfg.NodeName, Rotate: d.cfg.Kubelet.RotateCertificates, Asked: d.count.asked.answered, Logger: d.log,
	})
	if err != nil {
		return err
	}
	c.api = c.client.Config()
	if c.http, err = rest.HTTPClientFor(c.api); err != nil {
		return fmt.Errorf("make the API server's client: %w", err)
	}
	if err := c.measure(d.cfg); err != nil {
		return err
	}
	if qps, burst := d.cfg.APIRate(); qps > 0 {
		c.rate = rate.NewLimiter(rate.Limit(qps), burst)
	}
	d.cluster, d.admission = c, newAdmission(d)
	d.parts = append(d.parts, part{"client certificate", c.client.Run})
	if err := c.ranges.learn(d); err != nil {
		return err
	}
	for _, fit := range []func() error{d.fitEvents, d.fitObjects} {
		if err := fit(); err != nil {
			return err
		}
	}
	return nil
}

// measure finds what the node has, and what of it pods may use.
func (c *cluster) measure(cfg *config.Config) (err error) {
	if c.machine, err = machine.Read("/"); err != nil {
		return err
	}
	storage, err := machine.Storage(cfg.RootDir)
	if err != nil {
		return err
	}
	c.capacity = apinode.Capacity(c.machine, storage, cfg.Kubelet.MaxPods, cfg.Kubelet.PodsPerCore)
	if c.reserved, err = cfg.Reserved(); err != nil {
		return err
	}
	return c.reserved.Check(c.capacity)
}

// allocatable is what the scheduler may give to pods.
func (c *cluster) allocatable() corev1.ResourceList { return c.reserved.Allocatable(c.capacity) }

// allocatable is what pods can use of the node. Who stands alone keeps nothing back.
func (d *daemon) allocatable(memory int64) corev1.ResourceList {
	if d.cluster != nil {
		return d.cluster.allocatable()
	}
	return allocatable(memory, d.cfg.RootDir)
}

// nodeResources are what all pods together may use.
func (d *daemon) nodeResources() pod.Resources {
	if d.cluster != nil {
		return d.cluster.limits(d.cfg)
	}
	return nodeResources()
}

// problems is what keeps the daemon from knowing what it is to run.
func (d *daemon) problems() []source.Problem {
	all := append(d.latest.problems(), d.latestURL.problems()...)
	if d.cluster != nil {
		all = append(all, d.cluster.problems.problems()...)
	}
	return all
}

// limits are those of the cgroup of all pods.
func (c *cluster) limits(cfg *config.Config) pod.Resources {
	if !slices.Contains(cfg.Kubelet.EnforceNodeAllocatable, "pods") {
		return nodeResources()
	}
	return pod.NodeResources(c.reserved.Enforced(apinode.Internal(c.capacity, c.machine, c.reserved)))
}

// core is a client of core/v1 that shares the connections.
func (c *cluster) core() (*rest.RESTClient, error) { return coreClient(c.api, c.http) }

func coreClient(api *rest.Config, h *http.Client) (*rest.RESTClient, error) {
	scheme := apiruntime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("make the API server's client: %w", err)
	}
	cfg := rest.CopyConfig(api)
	cfg.APIPath, cfg.GroupVersion = "/api", &corev1.SchemeGroupVersion
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	cfg.ContentType = apiruntime.ContentTypeProtobuf
	cfg.AcceptContentTypes = apiruntime.ContentTypeProtobuf + "," + apiruntime.ContentTypeJSON
	cfg.QPS = -1 // who asks has limits of its own
	cfg.WarningHandler = rest.NoWarnings{}
	client, err := rest.RESTClientForConfigAndClient(cfg, h)
	if err != nil {
		return nil, fmt.Errorf("make the API server's client: %w", err)
	}
	return client, nil
}

func (d *daemon) fitEvents() error {
	core, err := d.cluster.core()
	if err != nil {
		return err
	}
	d.cluster.events, err = status.NewEvents(status.EventsConfig{
		Sink: status.NewClient(core), NodeName: d.cfg.NodeName,
		QPS: *d.cfg.Kubelet.EventRecordQPS, Burst: d.cfg.Kubelet.EventBurst, Logger: d.log,
	})
	d.parts = append(d.parts, part{"events", d.cluster.events.Run})
	return err
}

func (d *daemon) fitObjects() error {
	c := d.cluster
	client, err := object.NewClient(c.api, c.http)
	if err != nil {
		return err
	}
	c.objects, err = object.New(object.Config{
		API: client, Changed: func(ref pod.ObjectRef) { d.set.ObjectChanged(ref) }, NodeLabels: c.labels, Rate: c.rate, Logger: d.log,
	})
	if err != nil {
		return err
	}
	if c.services, err = object.NewServices(client, d.log); err != nil {
		return err
	}
	dir, err := durable.New(durable.Config{Path: filepath.Join(d.cfg.Agent.StateDir, "services")})
	if err != nil {
		return err
	}
	d.parts = append(d.parts, part{"objects", quiet(c.objects.Run)},
		part{"kept services", quiet(func(ctx context.Context) error { return c.services.Keep(ctx, dir) })})
	if !d.servicesTold() {
		d.parts = append(d.parts, part{"services", quiet(c.services.Run)})
	}
	return nil
}

// quiet takes the end of ctx for no failure.
func quiet(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := run(ctx); ctx.Err() == nil {
			return err
		}
		return nil
	}
}

func (c *cluster) labels() map[string]string {
	if n := c.node.Seen(); n != nil {
		return n.Labels
	}
	return nil
}

// fitPods fits the pods of the API server and what it is told of them.
func (d *daemon) fitPods() error {
	c := d.cluster
	if c == nil {
		return nil
	}
	core, err := c.core()
	if err != nil {
		return err
	}
	c.writer, err = status.New(status.Config{
		Pods: d.set, API: status.NewClient(core), Node: c.object, Yield: c.events.Yield, Rate: c.rate, Logger: d.log,
	})
	if err != nil {
		return err
	}
	cache, err := podCache(d.cfg)
	if err != nil {
		return err
	}
	c.pods, err = source.NewAPI(source.APIConfig{
		NodeName: d.cfg.NodeName, Rest: c.api, HTTP: c.http, After: c.known, Default: validate.Default,
		Running: d.runtime.Pods, Cache: cache, NoBrake: d.cfg.Agent.ObeyShortLists,
		Emit: d.offerAPI, Echo: d.echoed, Logger: d.log,
	})
	if err != nil {
		return err
	}
	d.count.heard(c.pods.Heard)
	d.parts = append(d.parts, part{"status", c.writer.Run}, part{"pods of the API server", d.afterRuntime(c.pods.Run)},
		part{"admission", d.afterRuntime(d.admission.run)})
	return nil
}

// echoed takes a pod of which only the node's own words have changed.
func (d *daemon) echoed(p *corev1.Pod) {
	d.count.starts.told(p, time.Now())
	d.cluster.server.echo(p, d.cluster.writer.Offer)
}

// object tells whom mirror pods belong to.
func (c *cluster) object() status.Node {
	if n := c.node.Seen(); n != nil {
		return status.Node{Name: n.Name, UID: n.UID}
	}
	return status.Node{}
}

// afterRuntime begins when the runtime has said what it holds.
func (d *daemon) afterRuntime(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-d.runtime.Synced():
			return run(ctx)
		}
	}
}

// fitNode fits the Node object and its lease.
func (d *daemon) fitNode() error {
	c := d.cluster
	if c == nil {
		return nil
	}
	api, reconnect := c.client.Dedicated()
	var err error
	if c.nodes, err = apinode.Dial(api, reconnect); err != nil {
		return err
	}
	c.facts.learn(d)
	k := &d.cfg.Kubelet
	c.node, err = apinode.New(apinode.Config{
		Identity: identity(d.cfg), Register: *k.RegisterNode,
		Nodes: c.nodes.Nodes(), Leases: c.nodes.Leases(), Conditions: conditions{d}, Facts: c.facts.now,
		LeaseDuration: seconds(k.NodeLeaseDurationSeconds), ReportEvery: k.NodeStatusReportFrequency.Duration,
		PodCIDRs: c.ranges.tell, Changed: d.nodeChanged, Event: func(e apinode.Event) { c.events.Node(e.Type, e.Reason, e.Message) },
		Reconnect: c.nodes.Reconnect, Logger: d.log,
	})
	if err != nil {
		return err
	}
	d.parts = append(d.parts, part{"node", d.afterAdoption(c.node.Run)}, part{"node facts", d.afterRuntime(c.facts.follow)},
		part{"pod ranges", c.ranges.run})
	return nil
}

// identity is what the operator makes of the node.
func identity(cfg *config.Config) apinode.Identity {
	k := &cfg.Kubelet
	id := apinode.Identity{
		Name: cfg.NodeName, Labels: cfg.Cluster.Labels, Taints: k.RegisterWithTaints, ProviderID: k.ProviderID,
		ExternalCloud: cfg.Cluster.ExternalCloud, ProvidedIPs: joined(cfg.NodeIPs),
		ControllerAttach: *k.EnableControllerAttachDetach, Version: apinode.Version(kubernetesRelease, version),
		MaxImages: int(*k.NodeStatusMaxImages), Port: k.Port,
	}
	return id
}

// goos is how pods name this system.
const goos = runtime.GOOS
