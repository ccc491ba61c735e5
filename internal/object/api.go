package object

import (
	"context"
	"fmt"
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"nodeagent/internal/pod"
)

// VolumeKind is the kind of PersistentVolumes, which pods refer to by claims only.
const VolumeKind pod.ObjectKind = "PersistentVolume"

// API is the API server. Errors are those of apierrors.
type API interface {
	// Get reads an object as it is now.
	Get(ctx context.Context, ref pod.ObjectRef) (runtime.Object, error)
	// List reads at most the one object, and the version of the whole.
	List(ctx context.Context, ref pod.ObjectRef) (runtime.Object, string, error)
	// Watch follows the object. The options' selector is set by it.
	Watch(ctx context.Context, ref pod.ObjectRef, options metav1.ListOptions) (watch.Interface, error)
	// Token asks for a token of a service account.
	Token(ctx context.Context, namespace, account string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)
}

// Client is the API server over the wire: protobuf, and no retries of its own,
// since who calls knows better when to try again.
type Client struct {
	rest   rest.Interface
	params runtime.ParameterCodec
}

// NewClient returns a client for the server of cfg, over h.
func NewClient(cfg *rest.Config, h *http.Client) (*Client, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, authenticationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("make a client for objects: %w", err)
		}
	}
	cfg = rest.CopyConfig(cfg)
	cfg.APIPath, cfg.GroupVersion = "/api", &corev1.SchemeGroupVersion
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	cfg.ContentType = runtime.ContentTypeProtobuf
	cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	if cfg.QPS == 0 && cfg.RateLimiter == nil {
		cfg.QPS = -1 // the library's default of 5 a second would hold up pods; our slots are the bound
	}
	client, err := rest.RESTClientForConfigAndClient(cfg, h)
	if err != nil {
		return nil, fmt.Errorf("make a client for objects: %w", err)
	}
	return &Client{rest: client, params: runtime.NewParameterCodec(scheme)}, nil
}

// kind is how a kind of object is asked for.
type kind struct {
	resource string
	one      func() runtime.Object
	list     func() runtime.Object
}

func kindOf(k pod.ObjectKind) (kind, error) {
	switch k {
	case pod.ConfigMapKind:
		return kind{"configmaps", func() runtime.Object { return &corev1.ConfigMap{} }, func() runtime.Object { return &corev1.ConfigMapList{} }}, nil
	case pod.SecretKind:
		return kind{"secrets", func() runtime.Object { return &corev1.Secret{} }, func() runtime.Object { return &corev1.SecretList{} }}, nil
	case pod.ClaimKind:
		return kind{"persistentvolumeclaims", func() runtime.Object { return &corev1.PersistentVolumeClaim{} }, nil}, nil
	case VolumeKind:
		return kind{"persistentvolumes", func() runtime.Object { return &corev1.PersistentVolume{} }, nil}, nil
	}
	return kind{}, fmt.Errorf("read a %s: there is no such kind of object here", k)
}

// request begins one. It is not retried by the library, which would wait with
// one of our slots.
func (c *Client) request(verb, resource, namespace string) *rest.Request {
	return c.rest.Verb(verb).Resource(resource).NamespaceIfScoped(namespace, namespace != "").MaxRetries(0)
}

// Get implements API.
func (c *Client) Get(ctx context.Context, ref pod.ObjectRef) (runtime.Object, error) {
	k, err := kindOf(ref.Kind)
	if err != nil {
		return nil, err
	}
	o := k.one()
	if err := c.request("GET", k.resource, ref.Namespace).Name(ref.Name).Do(ctx).Into(o); err != nil {
		return nil, err
	}
	return o, nil
}

// List implements API.
func (c *Client) List(ctx context.Context, ref pod.ObjectRef) (runtime.Object, string, error) {
	k, err := kindOf(ref.Kind)
	if err != nil || k.list == nil {
		return nil, "", fmt.Errorf("list %s: a node may only get it: %w", ref.Kind, err)
	}
	list, options := k.list(), metav1.ListOptions{FieldSelector: selector(ref)}
	if err := c.request("GET", k.resource, ref.Namespace).VersionedParams(&options, c.params).Do(ctx).Into(list); err != nil {
		return nil, "", err
	}
	switch l := list.(type) {
	case *corev1.ConfigMapList:
		for i := range l.Items {
			if l.Items[i].Name == ref.Name {
				return &l.Items[i], l.ResourceVersion, nil
			}
		}
		return nil, l.ResourceVersion, nil
	case *corev1.SecretList:
		for i := range l.Items {
			if l.Items[i].Name == ref.Name {
				return &l.Items[i], l.ResourceVersion, nil
			}
		}
		return nil, l.ResourceVersion, nil
	}
	return nil, "", fmt.Errorf("list %s: the answer is of another kind", ref.Kind)
}

// Watch implements API.
func (c *Client) Watch(ctx context.Context, ref pod.ObjectRef, options metav1.ListOptions) (watch.Interface, error) {
	k, err := kindOf(ref.Kind)
	if err != nil {
		return nil, err
	}
	options.Watch, options.FieldSelector = true, selector(ref)
	return c.request("GET", k.resource, ref.Namespace).VersionedParams(&options, c.params).Watch(ctx)
}

// Token implements API.
func (c *Client) Token(ctx context.Context, namespace, account string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	answer := &authenticationv1.TokenRequest{}
	err := c.request("POST", "serviceaccounts", namespace).Name(account).SubResource("token").Body(request).Do(ctx).Into(answer)
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// selector is what the node authorizer demands: one object by its name.
func selector(ref pod.ObjectRef) string { return "metadata.name=" + ref.Name }

// ListServices implements ServicesAPI.
func (c *Client) ListServices(ctx context.Context, options metav1.ListOptions) (*corev1.ServiceList, error) {
	l := &corev1.ServiceList{}
	if err := c.request("GET", "services", "").VersionedParams(&options, c.params).Do(ctx).Into(l); err != nil {
		return nil, err
	}
	return l, nil
}

// WatchServices implements ServicesAPI.
func (c *Client) WatchServices(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	options.Watch = true
	return c.request("GET", "services", "").VersionedParams(&options, c.params).Watch(ctx)
}
