package config

import (
	"strings"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// How many images are pulled at once. kubelet pulls one after the other unless
// told otherwise, and without a bound when told so; here a few by default, and
// never more than the bound.
const (
	defaultParallelPulls = 3
	maxParallelPulls     = 64
)

// ParallelPulls is how many images may be pulled at once, from
// serializeImagePulls and maxParallelImagePulls.
func (c *Config) ParallelPulls() int {
	k := &c.Kubelet
	switch {
	case k.SerializeImagePulls != nil && *k.SerializeImagePulls:
		return 1
	case k.MaxParallelImagePulls != nil:
		return min(int(*k.MaxParallelImagePulls), maxParallelPulls)
	case k.SerializeImagePulls != nil:
		return maxParallelPulls
	default:
		return defaultParallelPulls
	}
}

// kubelet's defaults of how fast pulls may begin.
const (
	defaultPullQPS   = 5
	defaultPullBurst = 10
)

// PullRate is how many pulls may begin in a second (0: no bound), and how many at
// once after a rest, from registryPullQPS and registryBurst.
func (c *Config) PullRate() (qps float64, burst int) {
	qps, burst = defaultPullQPS, defaultPullBurst
	if c.Kubelet.RegistryPullQPS != nil {
		qps = float64(*c.Kubelet.RegistryPullQPS)
	}
	if c.Kubelet.RegistryBurst != 0 {
		burst = int(c.Kubelet.RegistryBurst)
	}
	return qps, burst
}

// checkPulls refuses what kubelet refuses.
func (c *Config) checkPulls(bad func(field, format string, args ...any)) {
	k := &c.Kubelet
	if k.RegistryPullQPS != nil && *k.RegistryPullQPS < 0 {
		bad("registryPullQPS", "%d is negative; 0 means no bound", *k.RegistryPullQPS)
	}
	if k.RegistryBurst < 0 {
		bad("registryBurst", "%d is negative", k.RegistryBurst)
	}
	if k.MaxParallelImagePulls != nil && *k.MaxParallelImagePulls < 1 {
		bad("maxParallelImagePulls", "%d is less than 1", *k.MaxParallelImagePulls)
	}
	if k.SerializeImagePulls != nil && *k.SerializeImagePulls && k.MaxParallelImagePulls != nil && *k.MaxParallelImagePulls > 1 {
		bad("maxParallelImagePulls", "%d needs serializeImagePulls: false", *k.MaxParallelImagePulls)
	}
	allowlist := k.PreloadedImagesVerificationAllowlist
	switch k.ImagePullCredentialsVerificationPolicy {
	case "", kubeletv1beta1.NeverVerify, kubeletv1beta1.NeverVerifyPreloadedImages, kubeletv1beta1.AlwaysVerify:
		if len(allowlist) > 0 {
			bad("preloadedImagesVerificationAllowlist", "needs imagePullCredentialsVerificationPolicy: %s", kubeletv1beta1.NeverVerifyAllowlistedImages)
		}
	case kubeletv1beta1.NeverVerifyAllowlistedImages:
	default:
		bad("imagePullCredentialsVerificationPolicy", "%q is none of %s, %s, %s, %s", k.ImagePullCredentialsVerificationPolicy,
			kubeletv1beta1.NeverVerify, kubeletv1beta1.NeverVerifyPreloadedImages, kubeletv1beta1.NeverVerifyAllowlistedImages, kubeletv1beta1.AlwaysVerify)
	}
	for _, p := range allowlist {
		prefix, _ := strings.CutSuffix(p, "/*")
		if prefix == "" || strings.ContainsAny(prefix, "* \t@") || strings.Contains(prefix[strings.LastIndexByte(prefix, '/')+1:], ":") && prefix == p {
			bad("preloadedImagesVerificationAllowlist", "%q is neither a repository without tag and digest nor the beginning of some with /* at the end", p)
		}
	}
}
