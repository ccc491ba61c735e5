package workertest

import (
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"nodeagent/internal/pod"
)

// PutConfigMap makes or changes a ConfigMap and tells the daemon there is.
func (w *World) PutConfigMap(m *corev1.ConfigMap) {
	w.putObject(pod.ObjectRef{Kind: pod.ConfigMapKind, Namespace: m.Namespace, Name: m.Name}, m)
}

// PutSecret makes or changes a Secret and tells the daemon there is.
func (w *World) PutSecret(s *corev1.Secret) {
	w.putObject(pod.ObjectRef{Kind: pod.SecretKind, Namespace: s.Namespace, Name: s.Name}, s)
}

// DropObject deletes one and tells the daemon there is.
func (w *World) DropObject(ref pod.ObjectRef) { w.putObject(ref, nil) }

func (w *World) putObject(ref pod.ObjectRef, object any) {
	w.mu.Lock()
	if w.objects == nil {
		w.objects = map[pod.ObjectRef]any{}
	}
	w.objects[ref] = object
	changed := w.objectChanged
	w.mu.Unlock()
	if changed != nil {
		changed(ref)
	}
}

// AttachObjects makes the world tell the daemon's pod set of changed objects.
func (d *Daemon) AttachObjects(changed func(pod.ObjectRef)) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	d.w.objectChanged = changed
}

// ConfigMap implements worker.Objects.
func (d *Daemon) ConfigMap(namespace, name string) (*corev1.ConfigMap, error) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	m, ok := d.w.objects[pod.ObjectRef{Kind: pod.ConfigMapKind, Namespace: namespace, Name: name}].(*corev1.ConfigMap)
	if !ok {
		return nil, apierrors.NewNotFound(corev1.Resource("configmap"), name)
	}
	return m, nil
}

// Secret implements worker.Objects.
func (d *Daemon) Secret(namespace, name string) (*corev1.Secret, error) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	s, ok := d.w.objects[pod.ObjectRef{Kind: pod.SecretKind, Namespace: namespace, Name: name}].(*corev1.Secret)
	if !ok {
		return nil, apierrors.NewNotFound(corev1.Resource("secret"), name)
	}
	return s, nil
}
