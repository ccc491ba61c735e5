package validate

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
)

// checkScheduling judges what tells a scheduler where the pod may go.
func checkScheduling(at spot, spec *corev1.PodSpec) {
	optionalName(at.child("nodeName"), spec.NodeName)
	labels(at.child("nodeSelector"), spec.NodeSelector)
	checkAffinity(at.child("affinity"), spec.Affinity)
	checkTolerations(at.child("tolerations"), spec.Tolerations)
	checkSpread(at.child("topologySpreadConstraints"), spec.TopologySpreadConstraints)
	if p := spec.PreemptionPolicy; p != nil {
		someOf(at.child("preemptionPolicy"), *p, corev1.PreemptLowerPriority, corev1.PreemptNever)
	}
	gates := seen{}
	for i, g := range spec.SchedulingGates {
		here := at.child("schedulingGates").index(i)
		here.format(g.Name, validation.IsQualifiedName(g.Name))
		if gates.again(g.Name) {
			here.duplicate(g.Name)
		}
	}
	if spec.NodeName != "" && len(gates) > 0 {
		at.child("nodeName").forbidden("cannot be set until all schedulingGates have been cleared")
	}
	if g := spec.SchedulingGroup; g != nil {
		if name := at.child("schedulingGroup").child("podGroupName"); g.PodGroupName == nil {
			name.required("must specify one of: `podGroupName`")
		} else {
			subdomain(name, *g.PodGroupName)
		}
	}
}

// checkTolerations judges which taints the pod puts up with. Lt and Gt need the
// feature gate TaintTolerationComparisonOperators, off by default.
func checkTolerations(at spot, list []corev1.Toleration) {
	for i, t := range list {
		here := at.index(i)
		operator := here.child("operator")
		if t.Key != "" {
			here.child("key").format(t.Key, validation.IsQualifiedName(t.Key))
		} else if t.Operator != corev1.TolerationOpExists {
			operator.invalid(t.Operator, "must be Exists when `key` is empty, which means \"match all values and all keys\"")
		}
		switch t.Operator {
		case corev1.TolerationOpEqual, "":
			here.child("value").format(t.Value, validation.IsValidLabelValue(t.Value))
		case corev1.TolerationOpExists:
			if t.Value != "" {
				here.child("value").invalid(t.Value, "must be empty when `operator` is 'Exists'")
			}
		default:
			oneOf(operator, t.Operator, corev1.TolerationOpEqual, corev1.TolerationOpExists)
		}
		if t.Effect != "" {
			oneOf(here.child("effect"), t.Effect,
				corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
		}
		if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
			here.child("effect").invalid(t.Effect, "must be 'NoExecute' when `tolerationSeconds` is set")
		}
	}
}

// checkSpread judges how pods are spread over the parts of a cluster.
func checkSpread(at spot, list []corev1.TopologySpreadConstraint) {
	pairs := seen{}
	for i, c := range list {
		here := at.index(i)
		positive(here.child("maxSkew"), c.MaxSkew)
		here.child("topologyKey").filled(c.TopologyKey)
		oneOf(here.child("whenUnsatisfiable"), c.WhenUnsatisfiable, corev1.DoNotSchedule, corev1.ScheduleAnyway)
		if pairs.again(strconv.Quote(c.TopologyKey) + string(c.WhenUnsatisfiable)) {
			here.child("topologyKey").duplicate(c.TopologyKey)
		}
		if c.MinDomains != nil {
			positive(here.child("minDomains"), *c.MinDomains)
			if c.WhenUnsatisfiable != corev1.DoNotSchedule {
				here.child("minDomains").invalid(*c.MinDomains, "can only use minDomains if whenUnsatisfiable is DoNotSchedule")
			}
		}
		nodeInclusion(here.child("nodeAffinityPolicy"), c.NodeAffinityPolicy)
		nodeInclusion(here.child("nodeTaintsPolicy"), c.NodeTaintsPolicy)
		selector(here.child("labelSelector"), c.LabelSelector)
		checkLabelKeys(here, c.MatchLabelKeys, nil, c.LabelSelector)
	}
}

func positive(at spot, n int32) {
	if n <= 0 {
		at.invalid(n, "must be greater than zero")
	}
}

func nodeInclusion(at spot, policy *corev1.NodeInclusionPolicy) {
	if policy != nil {
		oneOf(at, *policy, corev1.NodeInclusionPolicyIgnore, corev1.NodeInclusionPolicyHonor)
	}
}

func selector(at spot, s *metav1.LabelSelector) {
	at.add(metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, at.path)...)
}

// checkLabelKeys judges keys whose values are taken from the pod's own labels.
// A key may not be in the selector as well: the API server merges matchLabelKeys
// into matchExpressions, so one expression with such a key is what it made
// itself, and only a second one, or one beside a matchLabels, is refused.
func checkLabelKeys(at spot, match, mismatch []string, s *metav1.LabelSelector) {
	for name, keys := range map[string][]string{"matchLabelKeys": match, "mismatchLabelKeys": mismatch} {
		here := at.child(name)
		if len(keys) > 0 && s == nil {
			here.forbidden("must not be specified when labelSelector is not set")
			continue
		}
		for i, k := range keys {
			here.index(i).format(k, validation.IsQualifiedName(k))
		}
	}
	for i, k := range match {
		if slices.Contains(mismatch, k) {
			at.child("matchLabelKeys").index(i).invalid(k, "exists in both matchLabelKeys and mismatchLabelKeys")
		}
	}
	if s == nil {
		return
	}
	inSelector := seen{}
	for k := range s.MatchLabels {
		inSelector[k] = true
	}
	for _, e := range s.MatchExpressions {
		if inSelector.again(e.Key) && slices.Contains(match, e.Key) {
			at.child("matchLabelKeys").invalid(e.Key, "exists in both matchLabelKeys and labelSelector")
		}
	}
}
