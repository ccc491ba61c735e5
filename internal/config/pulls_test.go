package config

import (
	"strings"
	"testing"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// TestParallelPulls: the two fields of kubelet say how many images are pulled at
// once, and what kubelet refuses is refused by its name.
func TestParallelPulls(t *testing.T) {
	for _, c := range []struct {
		serialize *bool
		most      *int32
		want      int
	}{
		{nil, nil, 3},
		{new(true), nil, 1},
		{new(true), new(int32(1)), 1},
		{new(false), nil, 64},
		{nil, new(int32(7)), 7},
		{new(false), new(int32(1000)), 64},
	} {
		cfg := &Config{Kubelet: kubeletv1beta1.KubeletConfiguration{SerializeImagePulls: c.serialize, MaxParallelImagePulls: c.most}}
		if got := cfg.ParallelPulls(); got != c.want {
			t.Errorf("%v and %v are %d pulls at once, want %d", c.serialize, c.most, got, c.want)
		}
		cfg.checkPulls(func(field, format string, args ...any) { t.Errorf("%s is refused", field) })
	}
	allowlisted := kubeletv1beta1.NeverVerifyAllowlistedImages
	for name, k := range map[string]kubeletv1beta1.KubeletConfiguration{
		"maxParallelImagePulls":                               {SerializeImagePulls: new(true), MaxParallelImagePulls: new(int32(2))},
		"registryPullQPS":                                     {RegistryPullQPS: new(int32(-1))},
		"registryBurst":                                       {RegistryBurst: -1},
		"maxParallelImagePulls of nothing":                    {MaxParallelImagePulls: new(int32(0))},
		"imagePullCredentialsVerificationPolicy":              {ImagePullCredentialsVerificationPolicy: "Sometimes"},
		"preloadedImagesVerificationAllowlist":                {PreloadedImagesVerificationAllowlist: []string{"a.example/b"}},
		"preloadedImagesVerificationAllowlist, a glob within": {ImagePullCredentialsVerificationPolicy: allowlisted, PreloadedImagesVerificationAllowlist: []string{"a.example/*/b"}},
		"preloadedImagesVerificationAllowlist, a tag":         {ImagePullCredentialsVerificationPolicy: allowlisted, PreloadedImagesVerificationAllowlist: []string{"a.example/b:v1"}},
		"preloadedImagesVerificationAllowlist, all":           {ImagePullCredentialsVerificationPolicy: allowlisted, PreloadedImagesVerificationAllowlist: []string{"/*"}},
	} {
		var refused []string
		(&Config{Kubelet: k}).checkPulls(func(field, _ string, _ ...any) { refused = append(refused, field) })
		if want, _, _ := strings.Cut(strings.Fields(name)[0], ","); len(refused) != 1 || refused[0] != want {
			t.Errorf("%s: refused are %v", name, refused)
		}
	}
	good := &Config{Kubelet: kubeletv1beta1.KubeletConfiguration{ImagePullCredentialsVerificationPolicy: allowlisted, PreloadedImagesVerificationAllowlist: []string{"a.example:5000/b", "a.example/*"}}}
	good.checkPulls(func(field, format string, args ...any) { t.Errorf("%s is refused", field) })
}

// TestPullRate: kubelet's defaults, and what it is told.
func TestPullRate(t *testing.T) {
	for _, c := range []struct {
		qps   *int32
		burst int32
		want  float64
		most  int
	}{
		{nil, 0, 5, 10},
		{new(int32(0)), 0, 0, 10},
		{new(int32(50)), 3, 50, 3},
	} {
		cfg := &Config{Kubelet: kubeletv1beta1.KubeletConfiguration{RegistryPullQPS: c.qps, RegistryBurst: c.burst}}
		if qps, burst := cfg.PullRate(); qps != c.want || burst != c.most {
			t.Errorf("%v and %d are %v a second, %d at once; want %v, %d", c.qps, c.burst, qps, burst, c.want, c.most)
		}
	}
}
