package validate

import (
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
)

// volumesByName maps the names of a pod's volumes to their sources; the first
// of two with one name counts.
func volumesByName(spec *corev1.PodSpec) map[string]*corev1.VolumeSource {
	m := make(map[string]*corev1.VolumeSource, len(spec.Volumes))
	for i := range spec.Volumes {
		if v := &spec.Volumes[i]; m[v.Name] == nil {
			m[v.Name] = &v.VolumeSource
		}
	}
	return m
}

// checkVolumes judges the volumes of a pod: names, one source each, and the
// source itself.
func checkVolumes(at spot, pod *corev1.Pod) {
	names, claims := seen{}, seen{}
	for _, v := range pod.Spec.Volumes {
		if v.Ephemeral != nil && pod.Name != "" {
			claims[pod.Name+"-"+v.Name] = true
		}
	}
	for i := range pod.Spec.Volumes {
		v, here := &pod.Spec.Volumes[i], at.index(i)
		if n := here.child("name"); n.filled(v.Name) {
			label(n, v.Name)
		}
		if names.again(v.Name) {
			here.child("name").duplicate(v.Name)
		}
		if c := v.PersistentVolumeClaim; c != nil && claims[c.ClaimName] {
			here.child("persistentVolumeClaim").child("claimName").invalid(c.ClaimName,
				"must not reference a PVC that gets created for an ephemeral volume")
		}
		checkOneSource(here, v, pod)
	}
}

// checkOneSource demands one source and judges it.
func checkOneSource(at spot, v *corev1.Volume, pod *corev1.Pod) {
	found := 0
	for _, list := range [][]source{localSources(v, pod), objectSources(v, pod), networkSources(v), cloudSources(v)} {
		for _, s := range list {
			if !s.set {
				continue
			}
			if found++; found > 1 {
				at.child(s.name).forbidden("may not specify more than 1 volume type")
				continue
			}
			s.check(at.child(s.name))
		}
	}
	if found == 0 {
		at.required("must specify a volume type")
	}
}

// source is one way to fill a volume; check is called only where set is true.
type source struct {
	name  string
	set   bool
	check func(spot)
}

// localSources are the volumes that the node makes from what it has.
func localSources(v *corev1.Volume, pod *corev1.Pod) []source {
	return []source{
		{"emptyDir", v.EmptyDir != nil, func(at spot) {
			if l := v.EmptyDir.SizeLimit; l != nil && l.Sign() < 0 {
				at.child("sizeLimit").forbidden("SizeLimit field must be a valid resource quantity")
			}
		}},
		{"hostPath", v.HostPath != nil, func(at spot) { checkHostPath(at, v.HostPath) }},
		{"downwardAPI", v.DownwardAPI != nil, func(at spot) {
			fileMode(at.child("defaultMode"), v.DownwardAPI.DefaultMode)
			checkDownwardFiles(at.child("items"), v.DownwardAPI.Items)
		}},
		{"projected", v.Projected != nil, func(at spot) { checkProjected(at, v.Projected, pod) }},
		{"image", v.Image != nil, func(at spot) { pullPolicy(at.child("pullPolicy"), v.Image.PullPolicy) }},
	}
}

// objectSources are the volumes that are filled from API objects.
func objectSources(v *corev1.Volume, pod *corev1.Pod) []source {
	return []source{
		{"secret", v.Secret != nil, func(at spot) {
			at.child("secretName").filled(v.Secret.SecretName)
			fileMode(at.child("defaultMode"), v.Secret.DefaultMode)
			checkItems(at.child("items"), v.Secret.Items)
		}},
		{"configMap", v.ConfigMap != nil, func(at spot) {
			at.child("name").filled(v.ConfigMap.Name)
			fileMode(at.child("defaultMode"), v.ConfigMap.DefaultMode)
			checkItems(at.child("items"), v.ConfigMap.Items)
		}},
		{"persistentVolumeClaim", v.PersistentVolumeClaim != nil, func(at spot) {
			at.child("claimName").filled(v.PersistentVolumeClaim.ClaimName)
		}},
		{"ephemeral", v.Ephemeral != nil, func(at spot) {
			if v.Ephemeral.VolumeClaimTemplate == nil {
				at.child("volumeClaimTemplate").required("")
			} else {
				checkClaimTemplate(at.child("volumeClaimTemplate"), v.Ephemeral.VolumeClaimTemplate)
			}
			if pod.Name != "" && v.Name != "" {
				at.format(v.Name, apivalidation.NameIsDNSSubdomain(pod.Name+"-"+v.Name, false))
			}
		}},
		{"csi", v.CSI != nil, func(at spot) { checkCSI(at, v.CSI) }},
	}
}

func checkHostPath(at spot, h *corev1.HostPathVolumeSource) {
	if !at.child("path").filled(h.Path) {
		return
	}
	noBackSteps(at.child("path"), h.Path)
	if h.Type != nil {
		oneOf(at.child("type"), *h.Type, corev1.HostPathUnset,
			corev1.HostPathDirectoryOrCreate, corev1.HostPathDirectory, corev1.HostPathFileOrCreate, corev1.HostPathFile,
			corev1.HostPathSocket, corev1.HostPathCharDev, corev1.HostPathBlockDev)
	}
}

func checkItems(at spot, items []corev1.KeyToPath) {
	for i, item := range items {
		here := at.index(i)
		here.child("key").filled(item.Key)
		if p := here.child("path"); p.filled(item.Path) {
			fileInVolume(p, item.Path)
		}
		fileMode(here.child("mode"), item.Mode)
	}
}

// volumeFields are the fields of a pod that a file may show.
var volumeFields = []string{
	"metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid",
}

func checkDownwardFiles(at spot, files []corev1.DownwardAPIVolumeFile) {
	for i, f := range files {
		here := at.index(i)
		if p := here.child("path"); p.filled(f.Path) {
			fileInVolume(p, f.Path)
		}
		switch {
		case f.FieldRef != nil:
			checkFieldRef(here.child("fieldRef"), f.FieldRef, volumeFields)
			if f.ResourceFieldRef != nil {
				here.invalid("resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
			}
		case f.ResourceFieldRef != nil:
			checkResourceRef(here.child("resourceFieldRef"), f.ResourceFieldRef, true)
		default:
			here.required("one of fieldRef and resourceFieldRef is required")
		}
		fileMode(here.child("mode"), f.Mode)
	}
}
