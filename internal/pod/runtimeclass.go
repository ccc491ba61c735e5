package pod

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// ReasonRuntimeHandler is the reason of a pod whose runtimeClassName is no
// handler of this node.
const ReasonRuntimeHandler = "UnknownRuntimeHandler"

// RuntimeHandler is the name of the runtime handler that the pod asks for; "" is
// the default one. Without an API server there is no RuntimeClass that could map
// one name to another, so that the class's name is the handler's.
func RuntimeHandler(p *corev1.Pod) string {
	if p.Spec.RuntimeClassName == nil {
		return ""
	}
	return *p.Spec.RuntimeClassName
}

func admitHandler(p *corev1.Pod, known []string) *Rejection {
	name := RuntimeHandler(p)
	if name == "" || slices.Contains(known, name) {
		return nil
	}
	have := "none beside the default"
	if len(known) > 0 {
		have = strings.Join(slices.Sorted(slices.Values(known)), ", ")
	}
	return &Rejection{Reason: ReasonRuntimeHandler, Message: fmt.Sprintf("spec.runtimeClassName: %q is no runtime handler of this node, which has %s; name one of these, leave the field out, or add the handler to runtimes in NodeAgentConfiguration", name, have)}
}
