package validate

import (
	"reflect"

	corev1 "k8s.io/api/core/v1"
)

// defaultVolume fills what a volume leaves open; one without any source is an
// empty directory.
func defaultVolume(v *corev1.VolumeSource) {
	if noSource(v) {
		v.EmptyDir = &corev1.EmptyDirVolumeSource{}
	}
	if v.Image != nil {
		orText(&v.Image.PullPolicy, pullPolicyFor(v.Image.Reference))
	}
	if v.HostPath != nil {
		orSet(&v.HostPath.Type, corev1.HostPathUnset)
	}
	if v.Secret != nil {
		orSet(&v.Secret.DefaultMode, corev1.SecretVolumeSourceDefaultMode)
	}
	if v.ConfigMap != nil {
		orSet(&v.ConfigMap.DefaultMode, corev1.ConfigMapVolumeSourceDefaultMode)
	}
	if v.DownwardAPI != nil {
		orSet(&v.DownwardAPI.DefaultMode, corev1.DownwardAPIVolumeSourceDefaultMode)
		defaultDownwardFiles(v.DownwardAPI.Items)
	}
	if v.Projected != nil {
		defaultProjected(v.Projected)
	}
	if v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil {
		claim := &v.Ephemeral.VolumeClaimTemplate.Spec
		orSet(&claim.VolumeMode, corev1.PersistentVolumeFilesystem)
		roundUp(claim.Resources.Limits)
		roundUp(claim.Resources.Requests)
	}
	defaultLegacyVolume(v)
}

// noSource reports whether no source is set, one of a younger API level included.
func noSource(v *corev1.VolumeSource) bool {
	for _, f := range reflect.ValueOf(v).Elem().Fields() {
		if !f.IsNil() {
			return false
		}
	}
	return true
}

func defaultDownwardFiles(files []corev1.DownwardAPIVolumeFile) {
	for i := range files {
		defaultFieldRef(files[i].FieldRef)
	}
}

func defaultProjected(p *corev1.ProjectedVolumeSource) {
	orSet(&p.DefaultMode, corev1.ProjectedVolumeSourceDefaultMode)
	for i := range p.Sources {
		if d := p.Sources[i].DownwardAPI; d != nil {
			defaultDownwardFiles(d.Items)
		}
		if t := p.Sources[i].ServiceAccountToken; t != nil {
			orSet(&t.ExpirationSeconds, 60*60)
		}
	}
}

// defaultLegacyVolume fills the volumes of single storage systems.
func defaultLegacyVolume(v *corev1.VolumeSource) {
	if v.ISCSI != nil {
		orText(&v.ISCSI.ISCSIInterface, "default")
	}
	if v.RBD != nil {
		orText(&v.RBD.RBDPool, "rbd")
		orText(&v.RBD.RadosUser, "admin")
		orText(&v.RBD.Keyring, "/etc/ceph/keyring")
	}
	if v.ScaleIO != nil {
		orText(&v.ScaleIO.StorageMode, "ThinProvisioned")
		orText(&v.ScaleIO.FSType, "xfs")
	}
	if v.AzureDisk != nil {
		orSet(&v.AzureDisk.CachingMode, corev1.AzureDataDiskCachingReadWrite)
		orSet(&v.AzureDisk.FSType, "ext4")
		orSet(&v.AzureDisk.ReadOnly, false)
		orSet(&v.AzureDisk.Kind, corev1.AzureSharedBlobDisk)
	}
}
