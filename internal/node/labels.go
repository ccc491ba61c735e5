package node

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	kubeletapis "k8s.io/kubelet/pkg/apis"
)

// CheckLabels refuses labels that a node may not give itself: the API server
// would refuse them too, or an administrator could be deceived by them.
func CheckLabels(labels map[string]string) error {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if ofKubernetes(key) && !kubeletapis.IsKubeletLabel(key) {
			errs = append(errs, fmt.Errorf("label %q: of kubernetes.io and k8s.io a node may only give itself %s, and what is below %s",
				key, strings.Join(kubeletapis.KubeletLabels(), ", "), strings.Join(kubeletapis.KubeletLabelNamespaces(), ", ")))
		}
		for _, why := range validation.IsQualifiedName(key) {
			errs = append(errs, fmt.Errorf("label %q: %s", key, why))
		}
		for _, why := range validation.IsValidLabelValue(labels[key]) {
			errs = append(errs, fmt.Errorf("label %q: value %q: %s", key, labels[key], why))
		}
	}
	return errors.Join(errs...)
}

func ofKubernetes(key string) bool {
	space, _, has := strings.Cut(key, "/")
	return has && slices.ContainsFunc([]string{"kubernetes.io", "k8s.io"}, func(of string) bool {
		return space == of || strings.HasSuffix(space, "."+of)
	})
}

// ownLabels are the labels that stay true as long as the node is this machine.
// They are put right when somebody changes them.
func ownLabels(id *Identity, os, arch string) map[string]string {
	return map[string]string{
		corev1.LabelHostname: id.Hostname,
		corev1.LabelOSStable: os, corev1.LabelArchStable: arch,
		kubeletapis.LabelOS: os, kubeletapis.LabelArch: arch,
	}
}

// kept are the labels among those of the registration that kubelet also puts
// right on a Node that is there already.
var kept = []string{
	corev1.LabelTopologyZone, corev1.LabelTopologyRegion,
	corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion,
	corev1.LabelInstanceTypeStable, corev1.LabelInstanceType,
}

// versionMark tells our versions from a kubelet's.
const versionMark = "+nodeagent."

// Version is what the node gives as the version of its kubelet: the level of
// Kubernetes that is implemented, for whoever compares versions, and ours.
func Version(level, ours string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-':
			return r
		}
		return '-'
	}, ours)
	if name = strings.Trim(name, ".-"); name == "" {
		name = "dev"
	}
	for strings.Contains(name, "..") { // no empty identifier: it would be no version
		name = strings.ReplaceAll(name, "..", ".")
	}
	return level + versionMark + name
}
