package away

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"nodeagent/internal/cert"
	"nodeagent/internal/cert/certtest"
	"nodeagent/internal/durable"
	"nodeagent/internal/node"
	"nodeagent/internal/node/machine"
	"nodeagent/internal/object"
	"nodeagent/internal/pod"
	"nodeagent/internal/source"
	"nodeagent/internal/status"
)

// daemon is what of a daemon talks to the API server, fitted as cmd/nodeagent does.
type daemon struct {
	t       *testing.T
	client  *cert.Client
	serving *cert.Serving
	objects *object.Store
	node    *node.Node
	events  *status.Events
	writer  *status.Writer
	pods    podSet
	log     countedLog

	mu   sync.Mutex
	last source.Snapshot

	cancel context.CancelFunc
	ended  sync.WaitGroup
}

// countedLog counts what the rooms say.
type countedLog struct {
	mu    sync.Mutex
	lines int
	bytes int
}

func (l *countedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines, l.bytes = l.lines+1, l.bytes+len(b)
	return len(b), nil
}

func start(t *testing.T, s *server, dir string) *daemon {
	d := &daemon{t: t}
	log := slog.New(slog.NewTextHandler(&d.log, nil))
	boot := filepath.Join(dir, "bootstrap.conf")
	d.must(os.WriteFile(filepath.Join(dir, "ca.crt"), s.CAPEM, 0o600))
	d.must(os.WriteFile(boot, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://api.test:6443", certificate-authority: ca.crt}}]
users: [{name: u, user: {token: %q}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, certtest.Token), 0o600))
	var err error
	d.client, err = cert.NewClient(cert.ClientConfig{
		Kubeconfig: filepath.Join(dir, "kubelet.conf"), Bootstrap: boot, Dir: filepath.Join(dir, "pki"), NodeName: "node", Rotate: true, Logger: log,
	}.Virtual(s.dial))
	d.must(err)
	api := d.client.Config()
	h, err := rest.HTTPClientFor(api)
	d.must(err)
	d.serving, err = cert.NewServing(cert.ServingConfig{
		ByRequest: true, API: api, APIReady: d.client.Ready(), Dir: filepath.Join(dir, "pki"), NodeName: "node", Logger: log,
		Names: cert.Names{IPs: []net.IP{net.IPv4(192, 0, 2, 10)}},
	}.Virtual())
	d.must(err)
	core := coreClient(t, api, h)
	d.events, err = status.NewEvents(status.EventsConfig{Sink: status.NewClient(core), NodeName: "node", QPS: 50, Burst: 100, Logger: log})
	d.must(err)
	objects, err := object.NewClient(api, h)
	d.must(err)
	d.objects, err = object.New(object.Config{API: objects, Changed: func(pod.ObjectRef) {}, Logger: log})
	d.must(err)
	services, err := object.NewServices(objects, log)
	d.must(err)
	known, once := make(chan struct{}), sync.Once{}
	dedicated, reconnect := d.client.Dedicated()
	nodes, err := node.Dial(dedicated, reconnect)
	d.must(err)
	d.node, err = node.New(node.Config{
		Identity: node.Identity{Name: "node", Version: "v1.36.3+test", Port: 10250}, Register: true,
		Nodes: nodes.Nodes(), Leases: nodes.Leases(), Reconnect: nodes.Reconnect, Logger: log,
		Conditions: healthy{}, Facts: facts, LeaseDuration: 40 * time.Second, ReportEvery: 5 * time.Minute,
		Changed: func(*corev1.Node) { once.Do(func() { close(known) }) },
		Event:   func(e node.Event) { d.events.Node(e.Type, e.Reason, e.Message) },
	})
	d.must(err)
	d.writer, err = status.New(status.Config{Pods: &d.pods, API: status.NewClient(core), Logger: log,
		Node: func() status.Node { return status.Node{Name: "node", UID: "node-uid"} }})
	d.must(err)
	cache, err := durable.New(durable.Config{Path: filepath.Join(dir, "pods")})
	d.must(err)
	pods, err := source.NewAPI(source.APIConfig{NodeName: "node", Rest: api, HTTP: h, After: known, Cache: cache, Running: d.pods.uids, Emit: d.take, Logger: log})
	d.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	d.cancel = cancel
	for _, run := range []func(context.Context) error{
		d.client.Run, d.serving.Run, d.events.Run, d.objects.Run, services.Run, d.node.Run, d.writer.Run, pods.Run,
	} {
		d.ended.Go(func() { _ = run(ctx) })
	}
	return d
}

func (d *daemon) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) stop() {
	d.cancel()
	d.ended.Wait()
}

// take is what the daemon does with a snapshot, but for running the pods.
func (d *daemon) take(s source.Snapshot) {
	d.mu.Lock()
	d.last = s
	d.mu.Unlock()
	d.objects.Keep(s.Pods)
	d.writer.Offer(status.Snapshot{Pods: s.Pods, Mirrors: s.Mirrors, Synced: s.Listed})
}

func (d *daemon) seen() source.Snapshot {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}

func coreClient(t *testing.T, api *rest.Config, h *http.Client) *rest.RESTClient {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	cfg := rest.CopyConfig(api)
	cfg.APIPath, cfg.GroupVersion, cfg.QPS = "/api", &corev1.SchemeGroupVersion, -1
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	cfg.ContentType = runtime.ContentTypeProtobuf
	cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client, err := rest.RESTClientForConfigAndClient(cfg, h)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

type healthy struct{}

// Conditions implements node.Conditions.
func (healthy) Conditions() node.Verdicts { return node.Verdicts{Judged: true} }

func facts() node.Facts {
	m := machine.Machine{CPUs: 4, Memory: 8 << 30, BootID: "b", MachineID: "m", SystemUUID: "s", Kernel: "6.18.0", OSImage: "Debian"}
	c := node.Capacity(m, 100<<30, 110, 0)
	return node.Facts{Machine: m, Capacity: c, Allocatable: c, RuntimeVersion: "2.4.2",
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.10"}, {Type: corev1.NodeHostName, Address: "node"}}}
}

// podSet is the pods that run, as the pod set tells of them.
type podSet struct {
	mu   sync.Mutex
	pods map[types.UID]*corev1.Pod
	hear func(*corev1.Pod, bool) error
}

// Watch implements status.Pods.
func (s *podSet) Watch(ctx context.Context, tell func(*corev1.Pod, bool) error) error {
	s.mu.Lock()
	s.hear = tell
	for _, p := range s.pods {
		_ = tell(p, false)
	}
	s.mu.Unlock()
	<-ctx.Done()
	return ctx.Err()
}

func (s *podSet) tell(p *corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pods == nil {
		s.pods = map[types.UID]*corev1.Pod{}
	}
	s.pods[p.UID] = p
	if s.hear != nil {
		_ = s.hear(p, false)
	}
}

func (s *podSet) uids() (all []types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for uid := range s.pods {
		all = append(all, uid)
	}
	return all
}
