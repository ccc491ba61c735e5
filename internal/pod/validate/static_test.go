package validate

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestStatic(t *testing.T) {
	for _, tc := range []struct {
		name string
		spec corev1.PodSpec
		want []string
	}{
		{"nothing", corev1.PodSpec{}, nil},
		{"service account", corev1.PodSpec{ServiceAccountName: "x", DeprecatedServiceAccount: "x"}, []string{"spec.serviceAccountName"}},
		{"service account, old name", corev1.PodSpec{DeprecatedServiceAccount: "x"}, []string{"spec.serviceAccount"}},
		{"pull secret", corev1.PodSpec{ImagePullSecrets: []corev1.LocalObjectReference{{Name: "x"}, {}}}, []string{"spec.imagePullSecrets[0]"}},
		{"claims", corev1.PodSpec{
			ResourceClaims: []corev1.PodResourceClaim{{Name: "x"}},
			Containers:     []corev1.Container{{Resources: corev1.ResourceRequirements{Claims: []corev1.ResourceClaim{{Name: "x"}}}}},
		}, []string{"spec.resourceClaims", "spec.containers[0].resources.claims"}},
		{"variables", corev1.PodSpec{
			InitContainers: []corev1.Container{{EnvFrom: []corev1.EnvFromSource{{Prefix: "P", SecretRef: &corev1.SecretEnvSource{}}, {ConfigMapRef: &corev1.ConfigMapEnvSource{}}}}},
			Containers: []corev1.Container{{Env: []corev1.EnvVar{
				{Name: "A", Value: "x"},
				{Name: "B", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
				{Name: "C", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{}}},
				{Name: "D", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{}}},
			}}},
		}, []string{"spec.initContainers[0].envFrom[0].secretRef", "spec.initContainers[0].envFrom[1].configMapRef", "spec.containers[0].env[2].valueFrom.secretKeyRef", "spec.containers[0].env[3].valueFrom.configMapKeyRef"}},
		{"projections", corev1.PodSpec{Volumes: []corev1.Volume{{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{DownwardAPI: &corev1.DownwardAPIProjection{}},
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}},
			{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{}},
			{PodCertificate: &corev1.PodCertificateProjection{}},
			{},
		}}}}}}, []string{"spec.volumes[0].projected.sources[1].serviceAccountToken", "spec.volumes[0].projected.sources[2].clusterTrustBundle", "spec.volumes[0].projected.sources[3].podCertificate", "spec.volumes[0].projected.sources[4]"}},
		{"a secret of a volume that is local", corev1.PodSpec{Volumes: []corev1.Volume{
			{VolumeSource: corev1.VolumeSource{ISCSI: &corev1.ISCSIVolumeSource{SecretRef: &corev1.LocalObjectReference{Name: "x"}}}},
			{VolumeSource: corev1.VolumeSource{ScaleIO: &corev1.ScaleIOVolumeSource{SecretRef: &corev1.LocalObjectReference{Name: "x"}}}},
			{VolumeSource: corev1.VolumeSource{ISCSI: &corev1.ISCSIVolumeSource{}}},
		}}, []string{"spec.volumes[0].iscsi.secretRef", "spec.volumes[1].scaleIO.secretRef"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, e := range Static(&corev1.Pod{Spec: tc.spec}) {
				got = append(got, e.Field)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

// The kinds that kubelet refuses (HasAPIObjectReference), and every kind that
// nobody has thought about yet.
func TestStaticOfEachVolumeKind(t *testing.T) {
	refused := map[string]bool{"configMap": true, "secret": true, "csi": true, "glusterfs": true, "persistentVolumeClaim": true, "ephemeral": true, "azureFile": true}
	kinds := reflect.TypeFor[corev1.VolumeSource]()
	for i := range kinds.NumField() {
		name, _, _ := strings.Cut(kinds.Field(i).Tag.Get("json"), ",")
		var v corev1.Volume
		reflect.ValueOf(&v.VolumeSource).Elem().Field(i).Set(reflect.New(kinds.Field(i).Type.Elem()))
		got := len(Static(&corev1.Pod{Spec: corev1.PodSpec{Volumes: []corev1.Volume{v}}})) > 0
		if got != refused[name] {
			t.Errorf("%s: refused is %t (is it a new kind?)", name, got)
		}
	}
	var unknown struct {
		Cloud *struct{} `json:"cloud"`
	}
	unknown.Cloud = &struct{}{}
	if len(references{}.notLocal(nil, &unknown, localVolumes)) == 0 {
		t.Error("a kind that is not known was allowed")
	}
}
