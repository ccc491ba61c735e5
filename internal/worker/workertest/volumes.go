package workertest

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/pod"
)

// Volumes is the daemon's hold on the volumes of the world; it implements
// worker.Volumes.
type Volumes struct{ d *Daemon }

// Volumes returns the daemon's.
func (d *Daemon) Volumes() Volumes { return Volumes{d} }

// Setup implements worker.Volumes.
func (v Volumes) Setup(ctx context.Context, p *corev1.Pod) error {
	w := v.d.w
	// Objects are read before they are shown: they may change between the two.
	w.mu.Lock()
	shows, err := w.shows(p)
	w.mu.Unlock()
	return v.d.step(ctx, "set up volumes", func() error {
		if w.dirs[p.UID].IsZero() {
			return errors.New("the pod has no directory")
		}
		if err != nil {
			return err
		}
		w.volumes[p.UID] = shows
		return nil
	})
}

// shows is what the pod's volumes show of ConfigMaps now; called with mu held.
func (w *World) shows(p *corev1.Pod) (text string, err error) {
	for i := range p.Spec.Volumes {
		source := p.Spec.Volumes[i].ConfigMap
		if source == nil {
			continue
		}
		m, _ := w.objects[pod.ObjectRef{Kind: pod.ConfigMapKind, Namespace: p.Namespace, Name: source.Name}].(*corev1.ConfigMap)
		if m == nil {
			return "", apierrors.NewNotFound(corev1.Resource("configmap"), source.Name)
		}
		text += fmt.Sprint(m.Data)
	}
	return text, nil
}

// Shown tells what the volumes of the pod show, and what they should show now.
func (w *World) Shown(p *corev1.Pod) (shown, now string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now, _ = w.shows(p)
	return w.volumes[p.UID], now
}

// Mounts implements worker.Volumes.
func (v Volumes) Mounts(ctx context.Context, p *corev1.Pod, c *corev1.Container) ([]*runtimeapi.Mount, error) {
	w := v.d.w
	var all []*runtimeapi.Mount
	return all, v.d.step(ctx, "mounts", func() error {
		if _, ok := w.volumes[p.UID]; !ok {
			w.breaks("container %s of pod %s mounts volumes that are not there", c.Name, p.UID)
		}
		for _, m := range c.VolumeMounts {
			all = append(all, &runtimeapi.Mount{ContainerPath: m.MountPath, HostPath: "/volumes/" + m.Name})
		}
		return nil
	})
}

// Remove implements worker.Volumes.
func (v Volumes) Remove(ctx context.Context, uid types.UID) error {
	w := v.d.w
	return v.d.step(ctx, "remove volumes", func() error {
		for _, c := range w.containers {
			if c.uid == uid && c.State == pod.ContainerRunning {
				w.breaks("volumes of pod %s removed under the running %s", uid, c.Name)
			}
		}
		delete(w.volumes, uid)
		return nil
	})
}
