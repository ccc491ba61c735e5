package validate

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// youngerFields are the fields of a PodSpec that the types of k8s.io/api have
// and Kubernetes 1.36 does not. test/oracle knows when one is missing here.
var youngerFields = map[string]bool{
	"PodSpec.EvictionResponders":          true,
	"HTTPGetAction.Protocol":              true,
	"GRPCAction.Mode":                     true,
	"VolumeMount.BindMountOptions":        true,
	"EmptyDirVolumeSource.Mode":           true,
	"ConfigMapVolumeSource.DefaultUser":   true,
	"SecretVolumeSource.DefaultUser":      true,
	"DownwardAPIVolumeSource.DefaultUser": true,
	"ProjectedVolumeSource.DefaultUser":   true,
	"KeyToPath.User":                      true,
	"DownwardAPIVolumeFile.User":          true,
	"ServiceAccountTokenProjection.User":  true,
	"ClusterTrustBundleProjection.User":   true,
	"PodCertificateProjection.User":       true,
}

// Younger returns one error for each field of the spec that is set and is
// younger than the level of Validate: nothing has defaulted, judged or
// understood it. An API server of that level drops such a field; who reads a
// manifest should rather refuse it, since the pod asks for what it will not get.
func Younger(pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	findYounger(spot{errs: &errs}.child("spec"), reflect.ValueOf(&pod.Spec).Elem())
	return errs
}

func findYounger(at spot, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			findYounger(at, v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			findYounger(at.index(i), v.Index(i))
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[resource.Quantity]() {
			return
		}
		for f, value := range v.Fields() {
			if value.IsZero() || !f.IsExported() {
				continue
			}
			here := at
			if !f.Anonymous {
				here = at.child(jsonName(f))
			}
			if youngerFields[v.Type().Name()+"."+f.Name] {
				here.forbidden("is younger than Kubernetes 1.36, whose rules hold on this node")
				continue
			}
			findYounger(here, value)
		}
	}
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}
