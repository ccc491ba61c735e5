package volume

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/pod"
)

// Mounts returns what the container gets of the pod's volumes. What a mount was
// to expand is expanded already: subPathExpr does not count here.
func (v *Volumes) Mounts(ctx context.Context, p *corev1.Pod, c *corev1.Container) ([]*runtimeapi.Mount, error) {
	if err := plain(string(p.UID), c.Name); err != nil {
		return nil, err
	}
	unlock, err := v.locks.lock(ctx, p.UID)
	if err != nil {
		return nil, err
	}
	defer unlock()
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
	if m.SubPath != "" {
		if path, err = v.subPath(ctx, p, c, i, path); err != nil {
			return nil, err
		}
	}
	recursive, err := v.recursiveReadOnly(ctx, p, m)
	if err != nil {
		return nil, fmt.Errorf("failed to resolve recursive read-only mode: %w", err)
	}
	return &runtimeapi.Mount{
		ContainerPath: m.MountPath,
		HostPath:      path,
		// What shows objects is nobody's to write to, whatever the pod says.
		Readonly:          m.ReadOnly || objectPlugin(vol) != "" || readOnlyClaim(vol),
		RecursiveReadOnly: recursive,
		Propagation:       propagation(m.MountPropagation),
	}, nil
}

// recursiveReadOnly decides by the mount's mode (kubelet,
// resolveRecursiveReadOnly).
func (v *Volumes) recursiveReadOnly(ctx context.Context, p *corev1.Pod, m *corev1.VolumeMount) (bool, error) {
	if m.RecursiveReadOnly == nil || *m.RecursiveReadOnly == corev1.RecursiveReadOnlyDisabled {
		return false, nil
	}
	handler := ""
	if p.Spec.RuntimeClassName != nil {
		handler = *p.Spec.RuntimeClassName
	}
	switch mode := *m.RecursiveReadOnly; {
	case !m.ReadOnly:
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not read-only", m.Name)
	case m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone:
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not compatible with propagation %q", m.Name, *m.MountPropagation)
	case mode == corev1.RecursiveReadOnlyIfPossible:
		return v.cfg.RecursiveReadOnly(ctx, handler), nil
	case mode != corev1.RecursiveReadOnlyEnabled:
		return false, fmt.Errorf("unknown recursive read-only mode %q", mode)
	case !v.cfg.RecursiveReadOnly(ctx, handler):
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is not supported by the runtime", m.Name)
	}
	return true, nil
}

func propagation(mode *corev1.MountPropagationMode) runtimeapi.MountPropagation {
	if mode == nil {
		return runtimeapi.MountPropagation_PROPAGATION_PRIVATE
	}
	switch *mode {
	case corev1.MountPropagationHostToContainer:
		return runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	case corev1.MountPropagationBidirectional:
		return runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
	}
	return runtimeapi.MountPropagation_PROPAGATION_PRIVATE
}

// path is where the volume is on the node. One that was lost since it was set
// up is made again, or is an error: a container must never write to what lies
// under a mount that is gone.
func (v *Volumes) path(ctx context.Context, p *corev1.Pod, vol *corev1.Volume) (string, error) {
	switch {
	case vol.EmptyDir != nil:
		return v.dir(p.UID, pluginEmptyDir, vol.Name), v.setupEmptyDir(p, vol)
	case vol.HostPath != nil:
		return v.hostPath(ctx, vol.HostPath)
	case objectPlugin(vol) != "":
		return v.shown(ctx, p, vol)
	case pod.ClaimName(p, vol) != "":
		return v.claimed(ctx, p, vol)
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
