package volume

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// BenchmarkVolumes is a volume's whole way: set up, mounted, removed.
func BenchmarkVolumes(b *testing.B) {
	for name, vol := range map[string]corev1.Volume{
		"disk":      emptyDir("v", corev1.EmptyDirVolumeSource{}),
		"memory":    emptyDir("v", corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}),
		"configMap": configMapVolume("v", corev1.ConfigMapVolumeSource{LocalObjectReference: named("o")}),
		"secret":    {Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "o"}}},
		"none":      {},
	} {
		b.Run(name, func(b *testing.B) {
			v := testVolumes(b)
			v.cfg.Objects.(*objects).put("o", map[string]string{"a": "one", "b": "two"})
			p := testPod(b, v, "p", vol)
			if vol.Name == "" {
				p.Spec.Volumes, p.Spec.Containers[0].VolumeMounts = nil, nil
			}
			b.ReportAllocs()
			for b.Loop() {
				must(b, v.Setup(b.Context(), p))
				_, err := v.Mounts(b.Context(), p, &p.Spec.Containers[0])
				must(b, err)
				must(b, v.Remove(b.Context(), p.UID))
			}
		})
	}
}

// BenchmarkUnchanged is a setup of what is shown already.
func BenchmarkUnchanged(b *testing.B) {
	v := testVolumes(b)
	v.cfg.Objects.(*objects).put("o", map[string]string{"a": "one", "b": "two"})
	p := testPod(b, v, "p", configMapVolume("v", corev1.ConfigMapVolumeSource{LocalObjectReference: named("o")}))
	b.ReportAllocs()
	for b.Loop() {
		must(b, v.Setup(b.Context(), p))
	}
}
