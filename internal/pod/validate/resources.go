package validate

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	resourcehelper "k8s.io/component-helpers/resource"
)

// resourceLevel says whose resources are judged.
type resourceLevel int

const (
	containerResource resourceLevel = iota
	podResource
)

// checkResources judges names, amounts and the relation of requests to limits.
func checkResources(at spot, r *corev1.ResourceRequirements, level resourceLevel) {
	limits, requests := at.child("limits"), at.child("requests")
	for name, limit := range r.Limits {
		checkAmount(limits.key(string(name)), name, limit, level)
	}
	for name, request := range r.Requests {
		here := requests.key(string(name))
		checkAmount(here, name, request, level)
		limit, limited := r.Limits[name]
		switch {
		case !limited && !overcommits(name):
			limits.required("Limit must be set for non overcommitable resources")
		case !limited:
		case !overcommits(name) && request.Cmp(limit) != 0:
			here.invalid(request.String(), "must be equal to "+string(name)+" limit of "+limit.String())
		case request.Cmp(limit) > 0:
			here.invalid(request.String(), "must be less than or equal to "+string(name)+" limit of "+limit.String())
		}
	}
	if hasAny(r, isHugePage) && !hasAny(r, isCPUOrMemory) {
		at.forbidden("HugePages require cpu or memory")
	}
}

func hasAny(r *corev1.ResourceRequirements, is func(corev1.ResourceName) bool) bool {
	for name := range r.Limits {
		if is(name) {
			return true
		}
	}
	for name := range r.Requests {
		if is(name) {
			return true
		}
	}
	return false
}

func isCPUOrMemory(name corev1.ResourceName) bool {
	return name == corev1.ResourceCPU || name == corev1.ResourceMemory
}

func isHugePage(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// isNative reports whether the name belongs to Kubernetes: no domain, or one
// that contains kubernetes.io/.
func isNative(name corev1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

// overcommits reports whether a request may be lower than its limit.
func overcommits(name corev1.ResourceName) bool {
	return isNative(name) && !isHugePage(name)
}

// isExtended reports whether the name is one of a device or the like, which
// also has to fit where a quota names it with "requests." before it.
func isExtended(name corev1.ResourceName) bool {
	return !isNative(name) && !strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix) &&
		len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+string(name))) == 0
}

func checkAmount(at spot, name corev1.ResourceName, amount resource.Quantity, level resourceLevel) {
	checkResourceName(at, name, level)
	if amount.Sign() < 0 {
		at.invalid(amount.String(), "must be greater than or equal to 0")
	}
	if isExtended(name) && amount.MilliValue()%1000 != 0 {
		at.invalid(amount.String(), "must be an integer")
	}
	if isHugePage(name) && !wholePages(name, amount) {
		at.invalid(amount.String(), "is not positive integer multiple of "+string(name))
	}
}

func checkResourceName(at spot, name corev1.ResourceName, level resourceLevel) {
	if bad := validation.IsQualifiedName(string(name)); len(bad) > 0 {
		at.format(name, bad)
		return
	}
	switch {
	case level == podResource:
		if !resourcehelper.IsSupportedPodLevelResource(name) {
			at.invalid(name, "must be cpu, memory or hugepages of some size")
		}
	case isCPUOrMemory(name), name == corev1.ResourceEphemeralStorage, isHugePage(name) && !strings.Contains(string(name), "/"):
	case !strings.Contains(string(name), "/"):
		at.invalid(name, "must be a standard resource for containers")
	case !isNative(name) && !isExtended(name):
		at.invalid(name, "doesn't follow extended resource name standard")
	}
}

// wholePages reports whether the amount is a multiple of the page size that the
// name ends with.
func wholePages(name corev1.ResourceName, amount resource.Quantity) bool {
	size, err := resource.ParseQuantity(strings.TrimPrefix(string(name), corev1.ResourceHugePagesPrefix))
	if err != nil || size.Sign() <= 0 || size.MilliValue()%1000 != 0 {
		return false
	}
	return amount.Value()%size.Value() == 0
}

// checkPodResources judges resources given for the whole pod (KEP-2837).
func checkPodResources(at spot, spec *corev1.PodSpec) {
	r := spec.Resources
	if r == nil {
		return
	}
	if spec.OS != nil && spec.OS.Name == corev1.Windows {
		at.forbidden("may not be set for a windows pod")
		return
	}
	if r.Claims != nil {
		at.child("claims").forbidden("claims may not be set for Resources at pod-level")
	}
	checkResources(at, r, podResource)
	pod := &corev1.Pod{Spec: *spec}
	for name, sum := range resourcehelper.AggregateContainerRequests(pod, resourcehelper.PodResourcesOptions{}) {
		if q, there := r.Requests[name]; there && sum.Cmp(q) > 0 {
			at.child("requests").key(string(name)).invalid(q.String(),
				"must be greater than or equal to aggregate container requests of "+sum.String())
		}
	}
	for name, sum := range resourcehelper.AggregateContainerLimits(pod, resourcehelper.PodResourcesOptions{}) {
		if q, there := r.Limits[name]; there && isHugePage(name) && sum.Cmp(q) > 0 {
			at.child("limits").key(string(name)).invalid(q.String(),
				"must be greater than or equal to aggregate container limits of "+sum.String())
		}
	}
	for i := range spec.Containers {
		for name, limit := range spec.Containers[i].Resources.Limits {
			if q, there := r.Limits[name]; there && limit.Cmp(q) > 0 {
				at.child("limits").key(string(name)).invalid(q.String(),
					"must be greater than or equal to the limit "+limit.String()+" of container "+spec.Containers[i].Name)
			}
		}
	}
}
