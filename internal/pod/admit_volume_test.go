package pod

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// TestAdmitVolumes: what is not honoured of volumes and their mounts is refused
// by name, kinds of volume of later releases included.
func TestAdmitVolumes(t *testing.T) {
	source := func(s corev1.VolumeSource) func(*corev1.PodSpec) {
		return func(p *corev1.PodSpec) { p.Volumes = []corev1.Volume{{Name: "v", VolumeSource: s}} }
	}
	for field, change := range map[string]func(*corev1.PodSpec){
		"spec.volumes[0]":         source(corev1.VolumeSource{}),
		"spec.volumes[0].nfs":     source(corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}),
		"spec.volumes[0].gitRepo": source(corev1.VolumeSource{GitRepo: &corev1.GitRepoVolumeSource{}}), // never: CVE-2024-10220
		"spec.volumes[0].csi":     source(corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{}}),
		"spec.volumes[0].image":   source(corev1.VolumeSource{Image: &corev1.ImageVolumeSource{}}),
		"spec.volumes[0].projected.sources[0].podCertificate": source(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{PodCertificate: &corev1.PodCertificateProjection{}}}}}),
		"spec.volumes[0].projected.sources[1].clusterTrustBundle": source(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{DownwardAPI: &corev1.DownwardAPIProjection{}}, {ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{}}}}}),
		"spec.volumes[0].projected.sources[0]": source(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{}}}}),
		"": source(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
			SizeLimit: new(resource.MustParse("1Mi"))}}), // as with kubelet, it takes an eviction to enforce it
	} {
		p := testPod(corev1.RestartPolicyAlways, "i", "a")
		change(&p.Spec)
		r := Admit(p, Allowed{})
		if field == "" {
			if r != nil {
				t.Errorf("a volume that is honoured is refused: %v", r)
			}
			continue
		}
		if r == nil || r.Reason != ReasonUnsupported || !strings.HasPrefix(r.Message, field+" ") {
			t.Errorf("%s: %v", field, r)
		}
	}
}
