package proxy

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	selectors "k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"nodeagent/internal/apiwatch"
)

// Deadlines of what the API server is asked. A watch lives for some minutes; a
// server that is alive sends a bookmark each minute, and the transport finds a
// connection that is dead before that.
const (
	listDeadline = 30 * time.Second
	openDeadline = 10 * time.Second // until the head of a watch's answer
	watchAtLeast = 5 * time.Minute
	silent       = 90 * time.Second
	silentFirst  = 10 * time.Second // while the first list is streamed
	page         = 500              // objects of a list's part
)

const protobuf = "application/vnd.kubernetes.protobuf"

// server asks the API server for one kind of object.
type server struct {
	client        *rest.RESTClient
	codec         runtime.ParameterCodec
	resource      string
	labels, field string
	list          func() runtime.Object
	is            func(any) bool // one of the kind
}

func newServers(cfg Config, h *http.Client) ([kinds]server, error) {
	var out [kinds]server
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, discoveryv1.AddToScheme, networkingv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return out, err
		}
	}
	codecs, codec := serializer.NewCodecFactory(scheme).WithoutConversion(), runtime.NewParameterCodec(scheme)
	dial := func(path string, group schema.GroupVersion) (*rest.RESTClient, error) {
		c := rest.CopyConfig(cfg.Rest)
		c.APIPath, c.GroupVersion, c.NegotiatedSerializer = path, &group, codecs
		c.ContentType, c.AcceptContentTypes = protobuf, protobuf+",application/json"
		c.QPS, c.RateLimiter = -1, nil // four requests at a time, paced by our own pauses
		c.WarningHandler = rest.NoWarnings{}
		return rest.RESTClientForConfigAndClient(c, h)
	}
	core, err := dial("/api", corev1.SchemeGroupVersion)
	if err != nil {
		return out, err
	}
	discovery, err := dial("/apis", discoveryv1.SchemeGroupVersion)
	if err != nil {
		return out, err
	}
	networking, err := dial("/apis", networkingv1.SchemeGroupVersion)
	if err != nil {
		return out, err
	}
	own := selectors.OneTermEqualSelector("metadata.name", cfg.NodeName).String()
	served := notOurs
	if cfg.Listener != nil { // it hears of all of them
		served = ""
	}
	out[services] = server{core, codec, "services", served, "", func() runtime.Object { return &corev1.ServiceList{} }, is[*corev1.Service]}
	out[endpointSlices] = server{discovery, codec, "endpointslices", notOurs, "", func() runtime.Object { return &discoveryv1.EndpointSliceList{} }, is[*discoveryv1.EndpointSlice]}
	out[nodes] = server{core, codec, "nodes", "", own, func() runtime.Object { return &corev1.NodeList{} }, is[*corev1.Node]}
	out[serviceCIDRs] = server{networking, codec, "servicecidrs", "", "", func() runtime.Object { return &networkingv1.ServiceCIDRList{} }, is[*networkingv1.ServiceCIDR]}
	return out, nil
}

func is[T any](o any) bool {
	_, ok := o.(T)
	return ok
}

func (s server) request(o metav1.ListOptions) *rest.Request {
	o.LabelSelector, o.FieldSelector = s.labels, s.field
	return s.client.Get().Resource(s.resource).MaxRetries(0).VersionedParams(&o, s.codec)
}

// part reads a part of all objects, as the server's store has them now.
func (s server) part(ctx context.Context, next string) (runtime.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, listDeadline)
	defer cancel()
	l := s.list()
	return l, s.request(metav1.ListOptions{Limit: page, Continue: next}).Do(ctx).Into(l)
}

// watch opens a watch: of what comes after a version, or, without one, of all that
// there is and then what comes after. It lasts until it is stopped.
func (s server) watch(ctx context.Context, version string) (watch.Interface, error) {
	length := int64((watchAtLeast + rand.N(watchAtLeast/3)).Seconds())
	o := metav1.ListOptions{ResourceVersion: version, AllowWatchBookmarks: true, TimeoutSeconds: &length, Watch: true}
	if version == "" {
		o.SendInitialEvents, o.ResourceVersionMatch = new(true), metav1.ResourceVersionMatchNotOlderThan
	}
	return apiwatch.Open(ctx, s.request(o), openDeadline)
}

// expired tells whether what comes after a version cannot be told (any more).
func expired(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
}
