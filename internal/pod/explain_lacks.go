package pod

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// lacks names the objects that are known not to be there.
func (e *explainer) lacks(refs []ObjectRef) string {
	var all []string
	for _, r := range refs {
		if e.Lacks[r] {
			all = append(all, fmt.Sprintf("%s %q not found", strings.ToLower(string(r.Kind)), r.Name))
		}
	}
	return strings.Join(all, ", ")
}

// volumeReferences lists the objects that the pod's volumes cannot do without.
func volumeReferences(p *corev1.Pod) []ObjectRef {
	r := references{namespace: p.Namespace}
	for i := range p.Spec.Volumes {
		v := p.Spec.Volumes[i].VolumeSource
		if v.ConfigMap != nil && optional(v.ConfigMap.Optional) || v.Secret != nil && optional(v.Secret.Optional) {
			continue
		}
		if v.Projected == nil {
			r.volume(&v)
			continue
		}
		for _, from := range v.Projected.Sources {
			if m := from.ConfigMap; m != nil && !optional(m.Optional) {
				r.add(ConfigMapKind, m.Name)
			}
			if s := from.Secret; s != nil && !optional(s.Optional) {
				r.add(SecretKind, s.Name)
			}
		}
	}
	return r.all
}

// envReferences lists the objects that the container's variables cannot do without.
func envReferences(namespace string, c *corev1.Container) []ObjectRef {
	r := references{namespace: namespace}
	for _, from := range c.EnvFrom {
		if m := from.ConfigMapRef; m != nil && !optional(m.Optional) {
			r.add(ConfigMapKind, m.Name)
		}
		if s := from.SecretRef; s != nil && !optional(s.Optional) {
			r.add(SecretKind, s.Name)
		}
	}
	for _, v := range c.Env {
		if v.ValueFrom == nil {
			continue
		}
		if m := v.ValueFrom.ConfigMapKeyRef; m != nil && !optional(m.Optional) {
			r.add(ConfigMapKind, m.Name)
		}
		if s := v.ValueFrom.SecretKeyRef; s != nil && !optional(s.Optional) {
			r.add(SecretKind, s.Name)
		}
	}
	return r.all
}

func optional(o *bool) bool { return o != nil && *o }
