package volume

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Mounts returns what the container gets of the pod's volumes. What a mount was
// to expand is expanded already: subPathExpr does not count here.
func (v *Volumes) Mounts(ctx context.Context, p *corev1.Pod, c *corev1.Container) ([]*runtimeapi.Mount, error) {
	if err := plain(string(p.UID), c.Name); err != nil {
		return nil, err
	}
	var all []*runtimeapi.Mount
	for i := range c.VolumeMounts {
		m, err := v.mount(ctx, p, c, i)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

func (v *Volumes) mount(ctx context.Context, p *corev1.Pod, c *corev1.Container, i int) (*runtimeapi.Mount, error) {
	m := &c.VolumeMounts[i]
	vol := volumeNamed(p, m.Name)
	if vol == nil {
		return nil, fmt.Errorf("cannot find volume %q to mount into container %q", m.Name, c.Name)
	}
	path, err := v.path(ctx, p, vol)
	if err != nil {
		return nil, fmt.Errorf("mount volume %q into container %q: %w", m.Name, c.Name, err)
	}
	return &runtimeapi.Mount{
		ContainerPath: m.MountPath,
		HostPath:      path,
		Readonly:      m.ReadOnly,
	}, nil
}

// path is where the volume is on the node. One that was lost since it was set
// up is made again, or is an error: a container must never write to what lies
// under a mount that is gone.
func (v *Volumes) path(_ context.Context, p *corev1.Pod, vol *corev1.Volume) (string, error) {
	switch {
	case vol.EmptyDir != nil:
		return v.dir(p.UID, pluginEmptyDir, vol.Name), v.setupEmptyDir(p, vol)
	default:
		return "", fmt.Errorf("no volume plugin matched")
	}
}

func volumeNamed(p *corev1.Pod, name string) *corev1.Volume {
	for i := range p.Spec.Volumes {
		if p.Spec.Volumes[i].Name == name {
			return &p.Spec.Volumes[i]
		}
	}
	return nil
}
