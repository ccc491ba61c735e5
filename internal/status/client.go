package status

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// Client asks a real API server; it is an API and a Sink. Each request is made once:
// who asks knows when to ask again.
type Client struct{ rest rest.Interface }

// NewClient returns a client over one for core/v1.
func NewClient(core rest.Interface) Client { return Client{core} }

// Get implements API.
func (c Client) Get(ctx context.Context, name types.NamespacedName) (*corev1.Pod, error) {
	p := &corev1.Pod{}
	err := c.rest.Get().Namespace(name.Namespace).Resource("pods").Name(name.Name).MaxRetries(0).Do(ctx).Into(p)
	return p, err
}

// Create implements API.
func (c Client) Create(ctx context.Context, p *corev1.Pod) (*corev1.Pod, error) {
	made := &corev1.Pod{}
	err := c.rest.Post().Namespace(p.Namespace).Resource("pods").Body(p).MaxRetries(0).Do(ctx).Into(made)
	return made, err
}

// PatchStatus implements API.
func (c Client) PatchStatus(ctx context.Context, name types.NamespacedName, patch []byte) (*corev1.Pod, error) {
	p := &corev1.Pod{}
	err := c.rest.Patch(types.StrategicMergePatchType).Namespace(name.Namespace).Resource("pods").Name(name.Name).
		SubResource("status").Body(patch).MaxRetries(0).Do(ctx).Into(p)
	return p, err
}

// Delete implements API.
func (c Client) Delete(ctx context.Context, name types.NamespacedName, uid types.UID) error {
	return c.rest.Delete().Namespace(name.Namespace).Resource("pods").Name(name.Name).
		Body(&metav1.DeleteOptions{GracePeriodSeconds: new(int64), Preconditions: &metav1.Preconditions{UID: &uid}}).
		MaxRetries(0).Do(ctx).Error()
}

// CreateEvent implements Sink.
func (c Client) CreateEvent(ctx context.Context, e *corev1.Event) error {
	return c.rest.Post().Namespace(e.Namespace).Resource("events").Body(e).MaxRetries(0).Do(ctx).Error()
}

// PatchEvent implements Sink.
func (c Client) PatchEvent(ctx context.Context, name types.NamespacedName, patch []byte) error {
	return c.rest.Patch(types.StrategicMergePatchType).Namespace(name.Namespace).Resource("events").Name(name.Name).
		Body(patch).MaxRetries(0).Do(ctx).Error()
}
