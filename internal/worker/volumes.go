package worker

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// mountVolumes adds to the container's mounts those of the pod's volumes.
func (s *Set) mountVolumes(ctx context.Context, p *corev1.Pod, c *corev1.Container, config *runtimeapi.ContainerConfig) error {
	if len(c.VolumeMounts) == 0 {
		return nil
	}
	mounts, err := s.cfg.Volumes.Mounts(ctx, p, c)
	if err != nil {
		return err
	}
	config.Mounts = append(config.Mounts, mounts...)
	return nil
}
