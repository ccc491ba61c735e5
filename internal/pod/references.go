package pod

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// ObjectKind is a kind of API object whose data pods use.
type ObjectKind string

const (
	// ConfigMapKind is the kind of ConfigMaps.
	ConfigMapKind ObjectKind = "ConfigMap"
	// SecretKind is the kind of Secrets.
	SecretKind ObjectKind = "Secret"
	// ServiceKind is the kind of Services, which no pod refers to: pods are told
	// of those of their namespace.
	ServiceKind ObjectKind = "Service"
	// ClaimKind is the kind of PersistentVolumeClaims, each with its volume.
	ClaimKind ObjectKind = "PersistentVolumeClaim"
	// TokenKind is the kind of service account tokens. A pod has its own, all of
	// them under its UID.
	TokenKind ObjectKind = "ServiceAccountToken"
)

// ObjectRef names something that a pod uses, of the API server or of the manifest
// directory.
type ObjectRef struct {
	Kind            ObjectKind
	Namespace, Name string
}

// References lists the ConfigMaps, Secrets, claims and tokens that the pod uses,
// sorted, each once: in variables, in volumes, and to pull its images. Who keeps
// them at hand keeps these; whose object changed is one that lists it.
func References(p *corev1.Pod) []ObjectRef {
	r := references{namespace: p.Namespace}
	for _, s := range p.Spec.ImagePullSecrets {
		r.add(SecretKind, s.Name)
	}
	for i := range p.Spec.Volumes {
		r.volume(&p.Spec.Volumes[i].VolumeSource)
		r.add(ClaimKind, ClaimName(p, &p.Spec.Volumes[i]))
	}
	if len(Tokens(p)) > 0 {
		r.add(TokenKind, string(p.UID))
	}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			r.env(list[i].Env, list[i].EnvFrom)
		}
	}
	for i := range p.Spec.EphemeralContainers {
		r.env(p.Spec.EphemeralContainers[i].Env, p.Spec.EphemeralContainers[i].EnvFrom)
	}
	slices.SortFunc(r.all, func(a, b ObjectRef) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return slices.Compact(r.all)
}

// ShowsObjects tells whether a volume of the pod shows what may change while it
// runs: objects, or the pod's own labels and annotations.
func ShowsObjects(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
		return v.ConfigMap != nil || v.Secret != nil || v.DownwardAPI != nil || v.Projected != nil
	})
}

type references struct {
	namespace string
	all       []ObjectRef
}

func (r *references) add(kind ObjectKind, name string) {
	if name != "" {
		r.all = append(r.all, ObjectRef{Kind: kind, Namespace: r.namespace, Name: name})
	}
}

func (r *references) env(vars []corev1.EnvVar, from []corev1.EnvFromSource) {
	for i := range from {
		if m := from[i].ConfigMapRef; m != nil {
			r.add(ConfigMapKind, m.Name)
		}
		if s := from[i].SecretRef; s != nil {
			r.add(SecretKind, s.Name)
		}
	}
	for i := range vars {
		if vars[i].ValueFrom == nil {
			continue
		}
		if m := vars[i].ValueFrom.ConfigMapKeyRef; m != nil {
			r.add(ConfigMapKind, m.Name)
		}
		if s := vars[i].ValueFrom.SecretKeyRef; s != nil {
			r.add(SecretKind, s.Name)
		}
	}
}

func (r *references) volume(v *corev1.VolumeSource) {
	if v.ConfigMap != nil {
		r.add(ConfigMapKind, v.ConfigMap.Name)
	}
	if v.Secret != nil {
		r.add(SecretKind, v.Secret.SecretName)
	}
	if v.Projected == nil {
		return
	}
	for i := range v.Projected.Sources {
		if m := v.Projected.Sources[i].ConfigMap; m != nil {
			r.add(ConfigMapKind, m.Name)
		}
		if s := v.Projected.Sources[i].Secret; s != nil {
			r.add(SecretKind, s.Name)
		}
	}
}
