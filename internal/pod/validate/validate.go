package validate

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Validate returns every reason for which the API server would refuse to create
// the pod. The pod must have been through Default.
func Validate(pod *corev1.Pod) field.ErrorList {
	return nil
}

// Default fills the fields that the pod leaves open as the API server does.
func Default(pod *corev1.Pod) {
}
