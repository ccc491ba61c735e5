package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"nodeagent/internal/config"
	"nodeagent/internal/cri/image"
	"nodeagent/internal/pod"
)

// imageConfig says where registries are configured and where their credentials
// are, in the order that kubelet searches, and how many pulls run at once.
func imageConfig(cfg *config.Config) image.Config {
	c := image.Config{
		HostsDir: cfg.Agent.RegistryConfigDir, DockerConfigs: []string{filepath.Join(cfg.RootDir, "config.json")},
		Parallel: cfg.ParallelPulls(),
	}
	c.PullQPS, c.PullBurst = cfg.PullRate()
	if home, err := os.UserHomeDir(); err == nil {
		c.DockerConfigs = append(c.DockerConfigs, filepath.Join(home, ".docker", "config.json"))
	}
	return c
}

// images fits the image store to what a pod's worker asks of it.
type images struct {
	store *image.Store
	cfg   *config.Config
	log   *slog.Logger
	// pulled is told of a new image.
	pulled func()
}

// Ensure has the image at hand as its pull policy says. Reasons and messages are
// kubelet's.
func (i images) Ensure(ctx context.Context, ref string, policy corev1.PullPolicy, secrets []*corev1.Secret, tell func(reason, message string)) (string, string, error) {
	if _, err := image.Name(ref); err != nil {
		return "", pod.ReasonInvalidImageName, fmt.Errorf("Failed to apply default image tag %q: %w", ref, err) //nolint:staticcheck // kubelet's words
	}
	keys, err := image.KeysOf(secrets)
	if err != nil {
		i.log.Warn("pull without a secret", "image", ref, "err", err)
	}
	if policy != corev1.PullAlways {
		img, err := i.store.Get(ctx, ref)
		switch {
		case err == nil && (!i.mustVerify(ref, img) || img.Access.Opens(keys)):
			tell("Pulled", fmt.Sprintf("Container image %q already present on machine", ref))
			return img.Name, "", nil
		case err != nil && !image.IsNotFound(err):
			return "", pod.ReasonImageInspectError, fmt.Errorf("Failed to inspect image %q: %w", ref, err) //nolint:staticcheck // kubelet's words
		case policy == corev1.PullNever:
			// Whether it is there is not for one to know who may not use it.
			return "", pod.ReasonErrImageNeverPull, fmt.Errorf("Container image %q is not present with pull policy of Never", ref) //nolint:staticcheck // kubelet's words
		}
	}
	tell("Pulling", fmt.Sprintf("Pulling image %q", ref))
	begun := time.Now()
	img, err := i.pull(ctx, ref, keys)
	if err != nil {
		reason, err := pullFailure(ref, err)
		return "", reason, err
	}
	i.pulled()
	took := time.Since(begun).Round(time.Millisecond)
	tell("Pulled", fmt.Sprintf("Successfully pulled image %q in %v (%v including waiting). Image size: %d bytes.", ref, took, took, img.Size))
	return img.Name, "", nil
}

// pull pulls the image and tells of it.
func (i images) pull(ctx context.Context, ref string, keys image.Keys) (image.Image, error) {
	begun := time.Now()
	i.log.Info("pull image", "image", ref)
	told := begun
	img, err := i.store.PullFor(ctx, ref, keys, func(p image.Progress) {
		if now := time.Now(); now.Sub(told) >= pullReport {
			told = now
			i.log.Info("pulling image", "image", ref, "phase", p.Phase, "bytes", p.Done, "of", p.Total, "after", now.Sub(begun).Round(time.Second))
		}
	})
	if err == nil {
		i.log.Info("pulled image", "image", ref, "bytes", img.Size, "took", time.Since(begun).Round(time.Millisecond))
	}
	return img, err
}

// pullReport is how often a pull that goes on is told of.
const pullReport = 10 * time.Second

// pullFailure is the reason and the message of a pull that failed.
func pullFailure(ref string, err error) (string, error) {
	switch {
	case image.IsRegistryUnavailable(err):
		return pod.ReasonRegistryUnavailable, fmt.Errorf("image pull failed for %s because the registry is unavailable: %w", ref, err)
	case image.IsUnverified(err):
		return pod.ReasonSignatureValidationFailed, fmt.Errorf("image pull failed for %s because the signature validation failed: %w", ref, err)
	}
	return pod.ReasonErrImagePull, err
}

// mustVerify tells whether a pod has to show that it may use an image that is
// there (imagePullCredentialsVerificationPolicy).
func (i images) mustVerify(ref string, img image.Image) bool {
	k := &i.cfg.Kubelet
	switch k.ImagePullCredentialsVerificationPolicy {
	case kubeletv1beta1.NeverVerify:
		return false
	case kubeletv1beta1.AlwaysVerify:
		return true
	case kubeletv1beta1.NeverVerifyAllowlistedImages:
		return !allowlisted(ref, k.PreloadedImagesVerificationAllowlist)
	default:
		return img.Access.Pulled
	}
}

// allowlisted tells whether a pattern names the image's repository: whole, or up
// to a /* at its end.
func allowlisted(ref string, patterns []string) bool {
	repo := image.Repository(ref)
	return slices.ContainsFunc(patterns, func(p string) bool {
		prefix, all := strings.CutSuffix(p, "*")
		return repo != "" && (repo == p || all && strings.HasPrefix(repo, prefix))
	})
}

// preload brings in the images of the directory of archives, once the runtime is
// there.
func (d *daemon) preload(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.runtime.Synced():
	}
	return d.runtime.Images().Preload(ctx, d.cfg.Agent.ImagesDir, func() { d.set.ImagesChanged(); d.imagesChanged() })
}
