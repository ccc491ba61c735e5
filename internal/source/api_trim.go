package source

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"nodeagent/internal/pod"
)

// trim drops what nobody on the node reads, before the pod is kept: who wrote which
// field, and what kubectl wrote last, unless the pod itself shows its annotations. A
// pod that calls itself one of a file is none, whoever may make pods (kubelet writes
// over it, too): those are critical, and no taint holds for them.
func (a *API) trim(p *corev1.Pod) *corev1.Pod {
	p.ManagedFields, p.SelfLink = nil, ""
	if _, ok := p.Annotations[corev1.LastAppliedConfigAnnotation]; ok && !showsAnnotations(&p.Spec) {
		delete(p.Annotations, corev1.LastAppliedConfigAnnotation)
	}
	if _, told := p.Annotations[annotationSource]; told && !mirror(p) {
		p.Annotations[annotationSource] = sourceAPI
	}
	if a.cfg.Default != nil {
		a.cfg.Default(p)
	}
	return p
}

// showsAnnotations tells whether a container can see the annotations of its pod.
func showsAnnotations(spec *corev1.PodSpec) bool {
	shown := func(ref *corev1.ObjectFieldSelector) bool {
		return ref != nil && strings.HasPrefix(ref.FieldPath, "metadata.annotations")
	}
	env := func(e corev1.EnvVar) bool { return e.ValueFrom != nil && shown(e.ValueFrom.FieldRef) }
	file := func(f corev1.DownwardAPIVolumeFile) bool { return shown(f.FieldRef) }
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			if slices.ContainsFunc(list[i].Env, env) {
				return true
			}
		}
	}
	for i := range spec.EphemeralContainers {
		if slices.ContainsFunc(spec.EphemeralContainers[i].Env, env) {
			return true
		}
	}
	return slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool {
		if v.DownwardAPI != nil && slices.ContainsFunc(v.DownwardAPI.Items, file) {
			return true
		}
		return v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.DownwardAPI != nil && slices.ContainsFunc(s.DownwardAPI.Items, file)
		})
	})
}

// sameWish tells whether two versions of a pod differ in nothing but what the node
// writes of it. That it is over is told, whoever wrote it: it then starts no more, and
// the cache has to know.
func sameWish(a, b *corev1.Pod) bool {
	if a.Generation != b.Generation || pod.Over(a.Status.Phase) != pod.Over(b.Status.Phase) {
		return false
	}
	x, y := a.ObjectMeta, b.ObjectMeta
	x.ResourceVersion, y.ResourceVersion = "", ""
	return equality.Semantic.DeepEqual(&x, &y) && equality.Semantic.DeepEqual(&a.Spec, &b.Spec) &&
		equality.Semantic.DeepEqual(others(&a.Status), others(&b.Status))
}

// others is what others than the node write into a pod's status.
func others(s *corev1.PodStatus) *corev1.PodStatus {
	return &corev1.PodStatus{
		Conditions: slices.DeleteFunc(slices.Clone(s.Conditions), func(c corev1.PodCondition) bool {
			return pod.OwnCondition(c.Type)
		}),
		NominatedNodeName:           s.NominatedNodeName,
		ResourceClaimStatuses:       s.ResourceClaimStatuses,
		ExtendedResourceClaimStatus: s.ExtendedResourceClaimStatus,
	}
}

// mirror tells whether a pod is the API server's picture of a static one.
func mirror(p *corev1.Pod) bool {
	_, ok := p.Annotations[annotationMirror]
	return ok
}
