package pod

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestReferences: every place in which a pod may name a ConfigMap or a Secret is
// looked at, and each object is listed once.
func TestReferences(t *testing.T) {
	named := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	env := func(name string) []corev1.EnvVar {
		return []corev1.EnvVar{
			{Name: "L", Value: "literal"},
			{Name: "A", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: named(name)}}},
			{Name: "B", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: named(name)}}},
		}
	}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns"},
		Spec: corev1.PodSpec{
			ImagePullSecrets: []corev1.LocalObjectReference{named("pull"), named("")},
			Volumes: []corev1.Volume{
				{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: named("volume")}}},
				{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "volume"}}},
				{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
					{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: named("projected")}},
					{Secret: &corev1.SecretProjection{LocalObjectReference: named("projected")}},
				}}}},
			},
			InitContainers: []corev1.Container{{Env: env("init")}},
			Containers: []corev1.Container{{Env: env("init"), EnvFrom: []corev1.EnvFromSource{
				{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: named("from")}},
				{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: named("from")}},
			}}},
			EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Env: env("debug")}}},
		},
	}
	var want []ObjectRef
	for _, name := range []string{"debug", "from", "init", "projected", "volume"} {
		want = append(want, ObjectRef{ConfigMapKind, "ns", name})
	}
	for _, name := range []string{"debug", "from", "init", "projected", "pull", "volume"} {
		want = append(want, ObjectRef{SecretKind, "ns", name})
	}
	if got := References(p); !slices.Equal(got, want) {
		t.Errorf("the pod refers to\n%v\nwant\n%v", got, want)
	}
}
