package validate

import (
	"cmp"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Validate returns every reason for which the API server would refuse to create
// the pod, empty if there is none. The pod must have been through Default: what
// that fills in is required here. The pod is not changed.
//
// Source of the rules: ValidatePodCreate of Kubernetes 1.36 with the options
// that kubelet uses for a static pod.
func Validate(pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	root := spot{errs: &errs}
	meta := root.child("metadata")
	checkMeta(meta, &pod.ObjectMeta)
	checkAnnotations(meta.child("annotations"), pod)
	spec := root.child("spec")
	checkIdentity(spec, &pod.Spec)
	checkVolumes(spec.child("volumes"), pod)
	checkResourceClaims(spec.child("resourceClaims"), pod)
	checkContainers(spec, &pod.Spec)
	checkPodResources(spec.child("resources"), &pod.Spec)
	checkPodSecurity(spec, &pod.Spec)
	checkHostNamespaces(spec, &pod.Spec)
	checkDNS(spec, &pod.Spec)
	checkScheduling(spec, &pod.Spec)
	checkProfilesMatch(spec, pod)
	// Maps are walked in any order; a reader wants the same text every time.
	slices.SortStableFunc(errs, func(a, b *field.Error) int {
		return cmp.Or(cmp.Compare(a.Field, b.Field), cmp.Compare(a.Detail, b.Detail))
	})
	return errs
}

// checkIdentity judges the plain fields of the spec that name or time things.
func checkIdentity(at spot, spec *corev1.PodSpec) {
	oneOfRestartPolicies(at.child("restartPolicy"), spec.RestartPolicy)
	if spec.TerminationGracePeriodSeconds == nil {
		at.child("terminationGracePeriodSeconds").required("")
	}
	if d := spec.ActiveDeadlineSeconds; d != nil {
		at.child("activeDeadlineSeconds").within(*d, 1, math.MaxInt32)
	}
	optionalName(at.child("serviceAccountName"), spec.ServiceAccountName)
	optionalName(at.child("priorityClassName"), spec.PriorityClassName)
	if spec.RuntimeClassName != nil {
		subdomain(at.child("runtimeClassName"), *spec.RuntimeClassName)
	}
	for i, gate := range spec.ReadinessGates {
		at.child("readinessGates").index(i).child("conditionType").format(
			gate.ConditionType, validation.IsQualifiedName(string(gate.ConditionType)))
	}
	if spec.Overhead != nil {
		checkResources(at.child("overhead"), &corev1.ResourceRequirements{Limits: spec.Overhead}, containerResource)
	}
	if len(spec.EphemeralContainers) > 0 {
		at.child("ephemeralContainers").forbidden("cannot be set on create")
	}
	checkOS(at, spec)
}

func oneOfRestartPolicies(at spot, policy corev1.RestartPolicy) {
	someOf(at, policy, corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
}

// subdomain demands a DNS subdomain, the form of most object names.
func subdomain(at spot, name string) {
	at.format(name, apivalidation.NameIsDNSSubdomain(name, false))
}

// optionalName demands a DNS subdomain where there is a name at all.
func optionalName(at spot, name string) {
	if name != "" {
		subdomain(at, name)
	}
}

// label demands a DNS label: at most 63 of a-z, 0-9 and '-'.
func label(at spot, name string) {
	at.format(name, validation.IsDNS1123Label(name))
}

// labels demands well-formed label keys and values.
func labels(at spot, set map[string]string) {
	at.add(metavalidation.ValidateLabels(set, at.path)...)
}

// everyContainer calls f for the init containers and then for the others.
// Ephemeral containers are left out: a pod that has them is refused as it is.
func everyContainer(at spot, spec *corev1.PodSpec, f func(spot, *corev1.Container)) {
	for i := range spec.InitContainers {
		f(at.child("initContainers").index(i), &spec.InitContainers[i])
	}
	for i := range spec.Containers {
		f(at.child("containers").index(i), &spec.Containers[i])
	}
}

// relative demands a path that is not absolute and never steps back.
func relative(at spot, path string) {
	if strings.HasPrefix(path, "/") {
		at.invalid(path, "must be a relative path")
	}
	noBackSteps(at, path)
}

// noBackSteps demands a path without an element "..".
func noBackSteps(at spot, path string) {
	if stepsBack(path) {
		at.invalid(path, "must not contain '..'")
	}
}

func stepsBack(path string) bool {
	for part := range strings.SplitSeq(path, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

// fileInVolume demands a relative path that does not begin with "..": the
// atomic writer of volumes keeps its own links under such names.
func fileInVolume(at spot, path string) {
	relative(at, path)
	if strings.HasPrefix(path, "..") && !strings.HasPrefix(path, "../") {
		at.invalid(path, "must not start with '..'")
	}
}

// fileMode demands permission bits only.
func fileMode(at spot, mode *int32) {
	if mode != nil && (*mode < 0 || *mode > 0o777) {
		at.invalid(*mode, "must be a number between 0 and 0777 (octal), both inclusive")
	}
}
