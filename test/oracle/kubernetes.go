package oracle

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/core"
	apiv1 "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/validation"
)

// verdict is the answer to one pod, as the judge spells it.
type verdict struct {
	Pod    json.RawMessage `json:"pod"`
	Errors []string        `json:"errors"`
	Static []string        `json:"static"`
}

// kubernetes answers as kubelet does for a manifest: defaults, conversion,
// validation, and back. capabilities.Setup(true) must have been called before,
// as kubelet does: it lets privileged containers pass.
func kubernetes(line []byte) (verdict, error) {
	var v verdict
	pod := new(corev1.Pod)
	if err := json.Unmarshal(line, pod); err != nil {
		return v, fmt.Errorf("decode pod: %w", err)
	}
	apiv1.SetObjectDefaults_Pod(pod)
	internal := new(core.Pod)
	if err := apiv1.Convert_v1_Pod_To_core_Pod(pod, internal, nil); err != nil {
		return v, fmt.Errorf("convert pod: %w", err)
	}
	opts := podutil.GetValidationOptionsFromPodSpecAndMeta(&internal.Spec, nil, &internal.ObjectMeta, nil)
	for _, e := range validation.ValidatePodCreate(internal, opts) {
		v.Errors = append(v.Errors, e.Error())
	}
	if refers, what, err := podutil.HasAPIObjectReference(internal); refers {
		v.Static = append(v.Static, fmt.Sprintf("references %s: %v", what, err))
	}
	back := &corev1.Pod{TypeMeta: metav1.TypeMeta{}}
	if err := apiv1.Convert_core_Pod_To_v1_Pod(internal, back, nil); err != nil {
		return v, fmt.Errorf("convert pod back: %w", err)
	}
	var err error
	v.Pod, err = json.Marshal(back)
	return v, err
}
