package node

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"
)

// Client reads and writes the node's own objects at an API server. It has
// connections of its own and no limit of requests, so that nothing that the rest
// of the daemon asks for can hold up a heartbeat. Any goroutine may use it.
type Client struct {
	core, leases rest.Interface
	params       runtime.ParameterCodec
	reconnect    func()
	skew         atomic.Pointer[time.Duration]
}

// Dial returns a client for the server of cfg, which is not changed. It opens no
// connection. reconnect closes the connections of cfg where that brings its own
// transport, which nobody else may use; else it is nil.
func Dial(cfg *rest.Config, reconnect func()) (*Client, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, coordinationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("make the node's client: %w", err)
		}
	}
	c := &Client{params: runtime.NewParameterCodec(scheme), reconnect: reconnect}
	cfg = rest.CopyConfig(cfg)
	if reconnect == nil {
		dial := cfg.Dial
		if dial == nil {
			dial = (&net.Dialer{Timeout: callTimeout, KeepAlive: 30 * time.Second}).DialContext
		}
		dialer := connrotation.NewDialer(connrotation.DialFunc(dial))
		cfg.Dial, c.reconnect = dialer.DialContext, dialer.CloseAll
	}
	cfg.QPS, cfg.RateLimiter, cfg.Timeout = -1, nil, 0 // each request has a deadline
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return dated{next, c} })
	transport, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("make the node's client: %w", err)
	}
	for _, of := range []struct {
		to    *rest.Interface
		group schema.GroupVersion
		path  string
	}{{&c.core, corev1.SchemeGroupVersion, "/api"}, {&c.leases, coordinationv1.SchemeGroupVersion, "/apis"}} {
		part := rest.CopyConfig(cfg)
		part.GroupVersion, part.APIPath = &of.group, of.path
		client, err := rest.RESTClientForConfigAndClient(part, transport)
		if err != nil {
			return nil, fmt.Errorf("make the node's client: %w", err)
		}
		*of.to = client
	}
	return c, nil
}

// Reconnect closes all connections: what is under way on them fails.
func (c *Client) Reconnect() { c.reconnect() }

// Skew is how far this node's clock is ahead of the server's, by its last
// answer; false: it has not answered. The server tells whole seconds.
func (c *Client) Skew() (time.Duration, bool) {
	if d := c.skew.Load(); d != nil {
		return *d, true
	}
	return 0, false
}

// dated reads the server's clock from its answers.
type dated struct {
	next   http.RoundTripper
	client *Client
}

func (d dated) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := d.next.RoundTrip(r)
	if err == nil {
		if at, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
			skew := time.Since(at).Truncate(time.Second)
			d.client.skew.Store(&skew)
		}
	}
	return answer, err
}

// Nodes are the server's Nodes.
func (c *Client) Nodes() Nodes { return nodes{c} }

// Leases are the server's leases of nodes.
func (c *Client) Leases() Leases { return leases{c} }

type nodes struct{ *Client }

// The server ends a watch after 5 to 10 minutes, so that not all end together.
const watchSeconds = 300

func (c nodes) List(ctx context.Context, name string) (*corev1.Node, string, error) {
	var list corev1.NodeList
	opts := &metav1.ListOptions{FieldSelector: only(name)}
	err := c.core.Get().Resource("nodes").VersionedParams(opts, c.params).MaxRetries(0).Do(ctx).Into(&list)
	if err != nil {
		return nil, "", err
	}
	for i := range list.Items {
		if list.Items[i].Name == name {
			return &list.Items[i], list.ResourceVersion, nil
		}
	}
	return nil, list.ResourceVersion, nil
}

func (c nodes) Watch(ctx context.Context, name, version string) (watch.Interface, error) {
	seconds := int64(watchSeconds + rand.IntN(watchSeconds))
	opts := &metav1.ListOptions{
		FieldSelector: only(name), ResourceVersion: version,
		Watch: true, AllowWatchBookmarks: true, TimeoutSeconds: &seconds,
	}
	return c.core.Get().Resource("nodes").VersionedParams(opts, c.params).MaxRetries(0).Watch(ctx)
}

func (c nodes) Create(ctx context.Context, n *corev1.Node) (*corev1.Node, error) {
	var answer corev1.Node
	err := c.core.Post().Resource("nodes").Body(n).MaxRetries(0).Do(ctx).Into(&answer)
	return &answer, err
}

func (c nodes) PatchStatus(ctx context.Context, name string, patch []byte) (*corev1.Node, error) {
	var answer corev1.Node
	err := c.core.Patch(types.StrategicMergePatchType).Resource("nodes").Name(name).SubResource("status").
		Body(patch).MaxRetries(0).Do(ctx).Into(&answer)
	return &answer, err
}

type leases struct{ *Client }

func (c leases) Get(ctx context.Context, name string) (*coordinationv1.Lease, error) {
	return c.do(ctx, c.Client.leases.Get().Name(name))
}

func (c leases) Create(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	return c.do(ctx, c.Client.leases.Post().Body(l))
}

func (c leases) Update(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	return c.do(ctx, c.Client.leases.Put().Name(l.Name).Body(l))
}

func (c leases) do(ctx context.Context, r *rest.Request) (*coordinationv1.Lease, error) {
	var answer coordinationv1.Lease
	err := r.Namespace(corev1.NamespaceNodeLease).Resource("leases").MaxRetries(0).Do(ctx).Into(&answer)
	return &answer, err
}

func only(name string) string { return fields.OneTermEqualSelector("metadata.name", name).String() }
