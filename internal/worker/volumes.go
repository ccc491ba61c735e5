package worker

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/pod"
)

// mountVolumes adds to the container's mounts those of the pod's volumes.
func (s *Set) mountVolumes(ctx context.Context, p *corev1.Pod, c *corev1.Container, config *runtimeapi.ContainerConfig) error {
	if len(c.VolumeMounts) == 0 {
		return nil
	}
	c, err := withSubPaths(c, config.Envs)
	if err != nil {
		return err
	}
	mounts, err := s.cfg.Volumes.Mounts(ctx, p, c)
	if err != nil {
		return err
	}
	config.Mounts = append(config.Mounts, mounts...)
	if slices.ContainsFunc(mounts, (*runtimeapi.Mount).GetRecursiveReadOnly) {
		config.Labels[pod.LabelRecursiveReadOnly] = "true"
	}
	return nil
}

// withSubPaths returns the container with each subPathExpr expanded by the
// container's variables into a subPath. A variable without a value is an error
// (kubelet, ExpandContainerVolumeMounts).
func withSubPaths(c *corev1.Container, env []*runtimeapi.KeyValue) (*corev1.Container, error) {
	if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.SubPathExpr != "" }) {
		return c, nil
	}
	known := map[string]string{}
	for _, e := range env {
		known[e.Key] = string(e.Value)
	}
	copied := *c
	copied.VolumeMounts = slices.Clone(c.VolumeMounts)
	for i := range copied.VolumeMounts {
		m := &copied.VolumeMounts[i]
		if m.SubPathExpr == "" {
			continue
		}
		path, missing := pod.ExpandAll(m.SubPathExpr, known)
		if len(missing) > 0 {
			slices.Sort(missing)
			return nil, fmt.Errorf("failed to expand subPathExpr of volumeMount %q of container %q: missing value for %s",
				m.Name, c.Name, strings.Join(slices.Compact(missing), ", "))
		}
		m.SubPath, m.SubPathExpr = path, ""
	}
	return &copied, nil
}
