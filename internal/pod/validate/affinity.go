package validate

import (
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	required  = "requiredDuringSchedulingIgnoredDuringExecution"
	preferred = "preferredDuringSchedulingIgnoredDuringExecution"
)

// checkAffinity judges which nodes and which neighbours the pod wants.
func checkAffinity(at spot, a *corev1.Affinity) {
	if a == nil {
		return
	}
	if n := a.NodeAffinity; n != nil {
		checkNodeAffinity(at.child("nodeAffinity"), n)
	}
	if p := a.PodAffinity; p != nil {
		checkPodTerms(at.child("podAffinity"),
			p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if p := a.PodAntiAffinity; p != nil {
		checkPodTerms(at.child("podAntiAffinity"),
			p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

func checkNodeAffinity(at spot, n *corev1.NodeAffinity) {
	if s := n.RequiredDuringSchedulingIgnoredDuringExecution; s != nil {
		terms := at.child(required).child("nodeSelectorTerms")
		if len(s.NodeSelectorTerms) == 0 {
			terms.required("must have at least one node selector term")
		}
		for i, t := range s.NodeSelectorTerms {
			checkNodeTerm(terms.index(i), t, true)
		}
	}
	for i, t := range n.PreferredDuringSchedulingIgnoredDuringExecution {
		here := at.child(preferred).index(i)
		here.child("weight").within(int64(t.Weight), 1, 100)
		checkNodeTerm(here.child("preference"), t.Preference, false)
	}
}

// checkNodeTerm judges one choice of nodes. Values that can match no label are
// let pass where the term is only a preference.
func checkNodeTerm(at spot, t corev1.NodeSelectorTerm, strictValues bool) {
	for i, r := range t.MatchExpressions {
		here := at.child("matchExpressions").index(i)
		values := here.child("values")
		switch r.Operator {
		case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
			filledList(values, r.Values)
		case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
			if len(r.Values) > 0 {
				values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
			}
		case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
			if len(r.Values) != 1 {
				values.required("must be specified single value when `operator` is 'Lt' or 'Gt'")
			}
		default:
			here.child("operator").invalid(r.Operator, "not a valid selector operator")
		}
		here.child("key").format(r.Key, validation.IsQualifiedName(r.Key))
		for j, v := range r.Values {
			if strictValues {
				values.index(j).format(v, validation.IsValidLabelValue(v))
			}
		}
	}
	for i, r := range t.MatchFields {
		checkNodeField(at.child("matchFields").index(i), r)
	}
}

// checkNodeField judges a choice of nodes by a field: its name is the only one.
func checkNodeField(at spot, r corev1.NodeSelectorRequirement) {
	oneOf(at.child("operator"), r.Operator, corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn)
	if len(r.Values) != 1 {
		at.child("values").required("must be only one value for a node field selector")
	}
	oneOf(at.child("key"), r.Key, metav1.ObjectNameField)
	for i, v := range r.Values {
		subdomain(at.child("values").index(i), v)
	}
}

func checkPodTerms(at spot, hard []corev1.PodAffinityTerm, soft []corev1.WeightedPodAffinityTerm) {
	for i := range hard {
		checkPodTerm(at.child(required).index(i), &hard[i])
	}
	for i := range soft {
		here := at.child(preferred).index(i)
		here.child("weight").within(int64(soft[i].Weight), 1, 100)
		checkPodTerm(here.child("podAffinityTerm"), &soft[i].PodAffinityTerm)
	}
}

func checkPodTerm(at spot, t *corev1.PodAffinityTerm) {
	selector(at.child("labelSelector"), t.LabelSelector)
	selector(at.child("namespaceSelector"), t.NamespaceSelector)
	for i, n := range t.Namespaces {
		at.child("namespaces").index(i).format(n, apivalidation.ValidateNamespaceName(n, false))
	}
	checkLabelKeys(at, t.MatchLabelKeys, t.MismatchLabelKeys, t.LabelSelector)
	at.child("topologyKey").format(t.TopologyKey, validation.IsQualifiedName(t.TopologyKey))
}
