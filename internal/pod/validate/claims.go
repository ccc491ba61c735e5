package validate

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
)

// checkClaimTemplate judges the claim that an ephemeral volume makes. Of its
// metadata only labels and annotations may be set.
func checkClaimTemplate(at spot, t *corev1.PersistentVolumeClaimTemplate) {
	meta := at.child("metadata")
	meta.add(apivalidation.ValidateAnnotations(t.Annotations, meta.child("annotations").path)...)
	labels(meta.child("labels"), t.Labels)
	rest := t.ObjectMeta
	rest.Labels, rest.Annotations = nil, nil
	if !reflect.DeepEqual(rest, metav1.ObjectMeta{}) {
		meta.forbidden("only labels and annotations can be set")
	}
	checkClaimSpec(at.child("spec"), &t.Spec)
}

func checkClaimSpec(at spot, s *corev1.PersistentVolumeClaimSpec) {
	checkAccessModes(at.child("accessModes"), s.AccessModes)
	at.add(metavalidation.ValidateLabelSelector(s.Selector,
		metavalidation.LabelSelectorValidationOptions{}, at.child("selector").path)...)
	storage := at.child("resources").child("requests").key(string(corev1.ResourceStorage))
	if q, there := s.Resources.Requests[corev1.ResourceStorage]; !there {
		storage.required("")
	} else if q.Sign() <= 0 {
		storage.invalid(q.String(), "must be greater than zero")
	}
	if s.StorageClassName != nil {
		optionalName(at.child("storageClassName"), *s.StorageClassName)
	}
	if s.VolumeAttributesClassName != nil {
		optionalName(at.child("volumeAttributesClassName"), *s.VolumeAttributesClassName)
	}
	if s.VolumeMode != nil {
		oneOf(at.child("volumeMode"), *s.VolumeMode, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)
	}
	checkDataSources(at, s)
}

func checkAccessModes(at spot, modes []corev1.PersistentVolumeAccessMode) {
	if len(modes) == 0 {
		at.required("at least 1 access mode is required")
	}
	alone, shared := false, false
	for _, m := range modes {
		oneOf(at, m, corev1.ReadWriteOnce, corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOncePod)
		if m == corev1.ReadWriteOncePod {
			alone = true
		} else {
			shared = true
		}
	}
	if alone && shared {
		at.forbidden("may not use ReadWriteOncePod with other access modes")
	}
}

// checkDataSources judges what a claim is filled from. dataSource is the older
// of the two and must say the same as dataSourceRef.
func checkDataSources(at spot, s *corev1.PersistentVolumeClaimSpec) {
	old, ref := s.DataSource, s.DataSourceRef
	if old != nil {
		checkDataSource(at.child("dataSource"), old.APIGroup, old.Kind, old.Name)
	}
	if ref == nil {
		return
	}
	checkDataSource(at.child("dataSourceRef"), ref.APIGroup, ref.Kind, ref.Name)
	elsewhere := ref.Namespace != nil && *ref.Namespace != ""
	if elsewhere {
		at.child("dataSourceRef").child("namespace").format(*ref.Namespace, apivalidation.ValidateNamespaceName(*ref.Namespace, false))
	}
	switch {
	case old == nil:
	case elsewhere:
		at.child("dataSource").invalid("", "may not be specified when dataSourceRef.namespace is specified")
	case !reflect.DeepEqual(old.APIGroup, ref.APIGroup) || old.Kind != ref.Kind || old.Name != ref.Name:
		at.child("dataSource").invalid("", "must match dataSourceRef")
	}
}

func checkDataSource(at spot, group *string, kind, name string) {
	at.child("name").filled(name)
	at.child("kind").filled(kind)
	if group != nil && *group != "" {
		at.child("apiGroup").format(*group, validation.IsDNS1123Subdomain(*group))
	} else if kind != "PersistentVolumeClaim" {
		at.invalid(kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup")
	}
}

// checkResourceClaims judges the claims of devices (KEP-4381).
func checkResourceClaims(at spot, pod *corev1.Pod) {
	if _, mirror := pod.Annotations[mirrorAnnotation]; mirror && len(pod.Spec.ResourceClaims) > 0 {
		at.forbidden("static pods do not support resource claims")
		return
	}
	names := seen{}
	for i, c := range pod.Spec.ResourceClaims {
		here := at.index(i)
		if n := here.child("name"); n.filled(c.Name) {
			label(n, c.Name)
			if names.again(c.Name) {
				n.duplicate(c.Name)
			}
		}
		if (c.ResourceClaimName == nil) == (c.ResourceClaimTemplateName == nil) {
			here.invalid(c.Name, "must specify exactly one of: `resourceClaimName`, `resourceClaimTemplateName`")
		}
		if c.ResourceClaimName != nil {
			subdomain(here.child("resourceClaimName"), *c.ResourceClaimName)
		}
		if c.ResourceClaimTemplateName != nil {
			subdomain(here.child("resourceClaimTemplateName"), *c.ResourceClaimTemplateName)
		}
	}
}

// checkClaimRefs judges which of the pod's claims a container uses, either a
// whole claim or single requests of it, but not both and nothing twice.
func checkClaimRefs(at spot, refs []corev1.ResourceClaim, claims []corev1.PodResourceClaim) {
	known := seen{}
	for _, c := range claims {
		known[c.Name] = true
	}
	used := seen{}
	for i, r := range refs {
		here := at.index(i)
		if !here.filled(r.Name) {
			continue
		}
		key := r.Name
		if r.Request != "" {
			label(here.child("request"), r.Request)
			key += "/" + r.Request
		}
		if used[r.Name] || r.Request == "" && usesRequestOf(used, r.Name) || used.again(key) {
			here.duplicate(key)
		}
		if !known[r.Name] {
			here.notFound(r.Name)
		}
		used[key] = true
	}
}

func usesRequestOf(used seen, claim string) bool {
	for key := range used {
		if strings.HasPrefix(key, claim+"/") {
			return true
		}
	}
	return false
}
