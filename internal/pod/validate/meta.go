package validate

import (
	"encoding/json"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Annotations that the API server looks into and k8s.io/api has no name for.
const (
	mirrorAnnotation      = "kubernetes.io/config.mirror"
	tolerationsAnnotation = "scheduler.alpha.kubernetes.io/tolerations"
	deletionCost          = "controller.kubernetes.io/pod-deletion-cost"
)

// checkMeta judges name, namespace, labels, annotations, owners and finalizers.
func checkMeta(at spot, meta *metav1.ObjectMeta) {
	at.add(apivalidation.ValidateObjectMeta(meta, true, apivalidation.NameIsDNSSubdomain, at.path)...)
	for i, f := range meta.Finalizers {
		switch {
		case strings.Contains(f, "/"):
		case f == "kubernetes", f == metav1.FinalizerOrphanDependents, f == metav1.FinalizerDeleteDependents:
		default:
			at.child("finalizers").index(i).invalid(f, "name is neither a standard finalizer name nor is it fully qualified")
		}
	}
}

// checkAnnotations judges the annotations that carry a meaning of their own.
func checkAnnotations(at spot, pod *corev1.Pod) {
	a := pod.Annotations
	if v, mirror := a[mirrorAnnotation]; mirror && pod.Spec.NodeName == "" {
		at.key(mirrorAnnotation).invalid(v, "must set spec.nodeName if mirror pod annotation is set")
	}
	if text := a[tolerationsAnnotation]; text != "" {
		var tolerations []corev1.Toleration
		if err := json.Unmarshal([]byte(text), &tolerations); err != nil {
			at.key(tolerationsAnnotation).invalid("", err.Error())
		} else {
			checkTolerations(at.child(tolerationsAnnotation), tolerations)
		}
	}
	if cost, there := a[deletionCost]; there && !isDeletionCost(cost) {
		at.key(deletionCost).invalid(cost, "must be a 32bit integer")
	}
	checkSeccompAnnotations(at, a)
	checkAppArmorAnnotations(at, pod)
}

// isDeletionCost reports whether text is an int32 in its one canonical form: no
// plus sign and no leading zero (but "-0" and "-07" pass, as they do there).
func isDeletionCost(text string) bool {
	if text == "" || text != "0" && text[0] != '-' && (text[0] < '1' || text[0] > '9') {
		return false
	}
	_, err := strconv.ParseInt(text, 10, 32)
	return err == nil
}
