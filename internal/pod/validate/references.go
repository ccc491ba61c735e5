package validate

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"nodeagent/internal/pod"
)

// NoReferences refuses what a static pod of a cluster's node may not ask for: what
// the API server keeps for others. Who may write a manifest onto the node shall not
// get at every Secret of the cluster by its name.
func NoReferences(p *corev1.Pod) field.ErrorList {
	var all field.ErrorList
	spec := field.NewPath("spec")
	for _, ref := range pod.References(p) {
		if ref.Kind != pod.TokenKind {
			all = append(all, field.Forbidden(spec, fmt.Sprintf("a static pod may not refer to the API server's objects: %s %s", ref.Kind, ref.Name)))
		}
	}
	if len(pod.Tokens(p)) > 0 {
		all = append(all, field.Forbidden(spec.Child("volumes"), "a static pod has no token of the API server"))
	}
	if p.Spec.ServiceAccountName != "" {
		all = append(all, field.Forbidden(spec.Child("serviceAccountName"), "a static pod may not refer to the API server's objects"))
	}
	if len(p.Spec.ResourceClaims) > 0 {
		all = append(all, field.Forbidden(spec.Child("resourceClaims"), "a static pod may not refer to the API server's objects"))
	}
	return all
}
