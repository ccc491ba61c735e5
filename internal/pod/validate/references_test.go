package validate

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestNoReferences: each way by which a pod gets at what the API server keeps is
// refused, and what is of the node alone is not.
func TestNoReferences(t *testing.T) {
	volume := func(v corev1.VolumeSource) corev1.PodSpec {
		return corev1.PodSpec{Volumes: []corev1.Volume{{Name: "v", VolumeSource: v}}}
	}
	for name, spec := range map[string]corev1.PodSpec{
		"ConfigMap":   volume(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "a"}}}),
		"Secret":      volume(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "a"}}),
		"claim":       volume(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "a"}}),
		"pull secret": {ImagePullSecrets: []corev1.LocalObjectReference{{Name: "a"}}},
		"account":     {ServiceAccountName: "a"},
		"token": volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "t"}}}}}),
		"variable": {Containers: []corev1.Container{{EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "a"}}}}}}},
		"resource": {ResourceClaims: []corev1.PodResourceClaim{{Name: "a"}}},
	} {
		if len(NoReferences(&corev1.Pod{Spec: spec})) != 1 {
			t.Errorf("a static pod gets at what the API server keeps by its %s", name)
		}
	}
	own := volume(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/etc"}})
	if errs := NoReferences(&corev1.Pod{Spec: own}); len(errs) > 0 {
		t.Errorf("refused: %v", errs)
	}
}
