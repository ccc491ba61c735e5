package status

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Annotations that tell static pods and their mirrors (pkg/kubelet/types).
const (
	annotationSource = "kubernetes.io/config.source"
	annotationHash   = "kubernetes.io/config.hash"
	annotationMirror = corev1.MirrorPodAnnotationKey
)

// Node is the Node object that mirror pods belong to; without a UID there is none
// (yet).
type Node struct {
	Name string
	UID  types.UID
}

// isStatic tells whether the pod is not the API server's.
func isStatic(p *corev1.Pod) bool {
	source, known := p.Annotations[annotationSource]
	return known && source != "api"
}

func isMirror(p *corev1.Pod) bool {
	_, is := p.Annotations[annotationMirror]
	return is
}

// mirrorOf makes the pod by which the API server shows a static pod. Its owner is
// the Node: the API server demands it, and the mirror goes with the Node.
func mirrorOf(p *corev1.Pod, node Node) *corev1.Pod {
	m := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, Name: p.Name, Labels: p.Labels, Annotations: maps.Clone(p.Annotations),
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID, Controller: new(true),
			}},
		},
		Spec: p.Spec,
	}
	m.Annotations[annotationMirror] = p.Annotations[annotationHash]
	return m
}

// outdated tells whether the API server's copy of the static pod cannot stay: it is
// of another static pod or Node, somebody changed what it says to be, or deletes it.
// It may differ in when the pod was first seen, which each daemon knows anew.
func outdated(m, static *corev1.Pod, node Node) bool {
	if m.DeletionTimestamp != nil || m.Annotations[annotationMirror] != static.Annotations[annotationHash] {
		return true
	}
	for _, a := range []string{annotationSource, annotationHash} {
		if m.Annotations[a] != static.Annotations[a] {
			return true
		}
	}
	owner := metav1.GetControllerOfNoCopy(m)
	return node.UID != "" && (owner == nil || owner.Kind != "Node" || owner.UID != node.UID)
}
