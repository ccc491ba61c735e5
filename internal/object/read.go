package object

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"nodeagent/internal/pod"
)

// ConfigMap returns one that a pod refers to, from memory. apierrors.IsNotFound
// tells that the API server said there is none; not to know is another error,
// whose method Absent says to wait for Changed.
func (s *Store) ConfigMap(namespace, name string) (*corev1.ConfigMap, error) {
	value, err := s.read(pod.ObjectRef{Kind: pod.ConfigMapKind, Namespace: namespace, Name: name}, corev1.Resource("configmaps"))
	if err != nil {
		return nil, err
	}
	return value.(*corev1.ConfigMap), nil
}

// Secret returns one as ConfigMap does.
func (s *Store) Secret(namespace, name string) (*corev1.Secret, error) {
	value, err := s.read(pod.ObjectRef{Kind: pod.SecretKind, Namespace: namespace, Name: name}, corev1.Resource("secrets"))
	if err != nil {
		return nil, err
	}
	return value.(*corev1.Secret), nil
}

func (s *Store) read(ref pod.ObjectRef, resource schema.GroupResource) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.objects[ref]
	if e == nil {
		return nil, unread{ref: ref, name: ref.Namespace + "/" + ref.Name}
	}
	e.told = true
	switch {
	case !e.known:
		return nil, unread{ref, ref.Namespace + "/" + ref.Name, e.err}
	case e.value == nil:
		return nil, apierrors.NewNotFound(resource, ref.Name)
	}
	return e.value, nil
}

// Await waits until everything that the pod refers to was read once, or failed to
// be, or ctx ends: so that a pod's first start need not fail and be woken again.
func (s *Store) Await(ctx context.Context, p *corev1.Pod) {
	for _, first := range s.firsts(p) {
		select {
		case <-first:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Store) firsts(p *corev1.Pod) []chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.pods[p.UID]
	if k == nil {
		return nil
	}
	var all []chan struct{}
	for _, ref := range k.refs {
		if e := s.objects[ref]; e != nil {
			all = append(all, e.first)
		}
	}
	for _, t := range k.tokens {
		all = append(all, t.first)
	}
	return all
}
