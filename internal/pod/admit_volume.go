package pod

import (
	"fmt"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// volumeKinds are the kinds of volume that this node makes, by their names in a
// manifest. Whatever is not named here is refused, kinds of later releases
// included.
var volumeKinds = map[string]bool{"emptyDir": true}

func admitVolumes(spec *corev1.PodSpec) *Rejection {
	for i := range spec.Volumes {
		v, at := &spec.Volumes[i], fmt.Sprintf("spec.volumes[%d]", i)
		if kind := volumeKind(v); !volumeKinds[kind] {
			return unsupported(strings.TrimSuffix(at+"."+kind, "."), fmt.Sprintf("volume %q: volumes of this kind are not built yet", v.Name))
		}
		if r := admitEmptyDir(at+".emptyDir", v.EmptyDir); r != nil {
			return r
		}
	}
	return nil
}

// volumeKind is the name of the field by which the volume is filled.
func volumeKind(v *corev1.Volume) string {
	source := reflect.ValueOf(&v.VolumeSource).Elem()
	for i := range source.NumField() {
		if !source.Field(i).IsZero() {
			name, _, _ := strings.Cut(source.Type().Field(i).Tag.Get("json"), ",")
			return name
		}
	}
	return ""
}

func admitEmptyDir(at string, e *corev1.EmptyDirVolumeSource) *Rejection {
	switch {
	case e == nil || e.Medium == corev1.StorageMediumMemory:
		return nil
	case e.Medium != corev1.StorageMediumDefault:
		return unsupported(at+".medium", fmt.Sprintf("the medium %q is not built yet", e.Medium))
	case e.SizeLimit != nil && e.SizeLimit.Sign() > 0:
		return unsupported(at+".sizeLimit", "on a disk it would not be enforced; medium: Memory enforces it")
	}
	return nil
}

// admitMounts refuses what a mount of a volume asks for and would not get.
func admitMounts(path string, c *corev1.Container) *Rejection {
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		if r := firstSet(fmt.Sprintf("%s.volumeMounts[%d]", path, i), []fieldSet{
			{"subPath", m.SubPath != ""},
			{"subPathExpr", m.SubPathExpr != ""},
			{"mountPropagation", m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone},
			{"recursiveReadOnly", m.RecursiveReadOnly != nil && *m.RecursiveReadOnly != corev1.RecursiveReadOnlyDisabled},
		}); r != nil {
			return r
		}
	}
	return nil
}
