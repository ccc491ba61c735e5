package main

import (
	"testing"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"nodeagent/internal/config"
	"nodeagent/internal/cri/image"
)

// TestMustVerify: which images a pod has to show its credentials for, by policy,
// by where the image is from, and by its repository.
func TestMustVerify(t *testing.T) {
	pulled, brought := image.Image{Access: image.Access{Pulled: true}}, image.Image{}
	for _, c := range []struct {
		policy          kubeletv1beta1.ImagePullCredentialsVerificationPolicy
		ref             string
		pulled, brought bool
	}{
		{"", "a.example/b:v1", true, false},
		{kubeletv1beta1.NeverVerifyPreloadedImages, "a.example/b:v1", true, false},
		{kubeletv1beta1.NeverVerify, "a.example/b:v1", false, false},
		{kubeletv1beta1.AlwaysVerify, "a.example/b:v1", true, true},
		{kubeletv1beta1.NeverVerifyAllowlistedImages, "a.example/b:v1", false, false},
		{kubeletv1beta1.NeverVerifyAllowlistedImages, "a.example/bb:v1", true, true},
		{kubeletv1beta1.NeverVerifyAllowlistedImages, "a.example/b@sha256:0123456789012345678901234567890123456789012345678901234567890123", false, false},
		{kubeletv1beta1.NeverVerifyAllowlistedImages, "c.example:5000/team/x", false, false},
		{kubeletv1beta1.NeverVerifyAllowlistedImages, "c.example:5000/teams/x", true, true},
		{kubeletv1beta1.NeverVerifyAllowlistedImages, "Not/A:name:", true, true},
	} {
		i := images{cfg: &config.Config{Kubelet: kubeletv1beta1.KubeletConfiguration{
			ImagePullCredentialsVerificationPolicy: c.policy,
			PreloadedImagesVerificationAllowlist:   []string{"a.example/b", "c.example:5000/team/*"},
		}}}
		if got := i.mustVerify(c.ref, pulled); got != c.pulled {
			t.Errorf("%s by %q, pulled: %t", c.ref, c.policy, got)
		}
		if got := i.mustVerify(c.ref, brought); got != c.brought {
			t.Errorf("%s by %q, brought in: %t", c.ref, c.policy, got)
		}
	}
}
