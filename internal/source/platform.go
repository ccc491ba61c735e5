package source

import (
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
)

// reject says why a pod cannot run on this node's operating system or
// architecture, in the words of kubelet's admission (pkg/kubelet/lifecycle):
// a label, a field and a node selector are three different reasons there.
func (m *Manifests) reject(p *corev1.Pod) *pod.Rejection {
	if os, ok := p.Labels[corev1.LabelOSStable]; ok && os != m.cfg.OS {
		return &pod.Rejection{
			Reason:  "PodOSSelectorNodeLabelDoesNotMatch",
			Message: "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
		}
	}
	if p.Spec.OS != nil && string(p.Spec.OS.Name) != m.cfg.OS {
		return &pod.Rejection{
			Reason:  "PodOSNotSupported",
			Message: "Failed to admit pod as the OS field doesn't match node OS",
		}
	}
	for key, have := range map[string]string{corev1.LabelOSStable: m.cfg.OS, corev1.LabelArchStable: m.cfg.Arch} {
		if want, ok := p.Spec.NodeSelector[key]; ok && want != have {
			return &pod.Rejection{
				Reason:  "NodeAffinity",
				Message: "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
			}
		}
	}
	return nil
}
