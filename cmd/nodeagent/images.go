package main

import (
	"context"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/config"
	"nodeagent/internal/cri/image"
	"nodeagent/internal/pod"
)

// imageConfig says where registries are configured and where their credentials
// are, in the order that kubelet searches.
func imageConfig(cfg *config.Config) image.Config {
	c := image.Config{HostsDir: cfg.Agent.RegistryConfigDir, DockerConfigs: []string{filepath.Join(cfg.RootDir, "config.json")}}
	if home, err := os.UserHomeDir(); err == nil {
		c.DockerConfigs = append(c.DockerConfigs, filepath.Join(home, ".docker", "config.json"))
	}
	return c
}

// images fits the image store to what a pod's worker asks of it.
type images struct{ store *image.Store }

// Ensure has the image at hand as its pull policy says. The reasons are
// kubelet's.
func (i images) Ensure(ctx context.Context, ref string, policy corev1.PullPolicy) (string, string, error) {
	if policy != corev1.PullAlways {
		img, err := i.store.Get(ctx, ref)
		switch {
		case err == nil:
			return img.Name, "", nil
		case !image.IsNotFound(err):
			return "", reasonOf(err), err
		case policy == corev1.PullNever:
			return "", pod.ReasonErrImageNeverPull, err
		}
	}
	img, err := i.store.Pull(ctx, ref, nil, nil)
	if err != nil {
		return "", reasonOf(err), err
	}
	return img.Name, "", nil
}

func reasonOf(err error) string {
	switch {
	case image.IsInvalidName(err):
		return pod.ReasonInvalidImageName
	case image.IsRegistryUnavailable(err):
		return pod.ReasonRegistryUnavailable
	}
	return pod.ReasonErrImagePull
}
