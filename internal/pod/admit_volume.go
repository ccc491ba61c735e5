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
var volumeKinds = map[string]bool{
	"emptyDir": true, "hostPath": true, "configMap": true, "secret": true, "downwardAPI": true, "projected": true,
}

// clusterKinds are those of a node that has an API server, and of projected volumes.
var clusterKinds = map[string]bool{"persistentVolumeClaim": true, "ephemeral": true, "serviceAccountToken": true}

// projectedKinds are the sources that a projected volume may have.
var projectedKinds = map[string]bool{"configMap": true, "secret": true, "downwardAPI": true}

func admitVolumes(spec *corev1.PodSpec, cluster bool) *Rejection {
	for i := range spec.Volumes {
		v, at := &spec.Volumes[i], fmt.Sprintf("spec.volumes[%d]", i)
		if kind := setField(&v.VolumeSource); !volumeKinds[kind] && !(cluster && clusterKinds[kind]) {
			return unsupported(strings.TrimSuffix(at+"."+kind, "."), fmt.Sprintf("volume %q: volumes of this kind are not built yet", v.Name))
		}
		if r := admitProjected(at+".projected", v.Projected, cluster); r != nil {
			return r
		}
	}
	return nil
}

// setField is the manifest's name of the first field that is set, "" for none.
func setField(choices any) string {
	v := reflect.ValueOf(choices).Elem()
	for i := range v.NumField() {
		if !v.Field(i).IsZero() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			return name
		}
	}
	return ""
}

func admitProjected(at string, p *corev1.ProjectedVolumeSource, cluster bool) *Rejection {
	if p == nil {
		return nil
	}
	for i := range p.Sources {
		if kind := setField(&p.Sources[i]); !projectedKinds[kind] && !(cluster && clusterKinds[kind]) {
			return unsupported(strings.TrimSuffix(fmt.Sprintf("%s.sources[%d].%s", at, i, kind), "."), "sources of this kind are not built yet")
		}
	}
	return nil
}
