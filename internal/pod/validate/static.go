package validate

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Static returns every reason for which a pod from a file or URL may not run: it
// refers to objects of the API, which such a pod is not authorised to read. The
// pod must have passed Validate.
//
// Source: kubelet with the feature gate PreventStaticPodAPIReferences, on by
// default since 1.34.
func Static(pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	at := spot{errs: &errs}.child("spec")
	refuse := func(here spot, what string) { here.forbidden("static pods may not reference " + what) }
	if pod.Spec.ServiceAccountName != "" {
		refuse(at.child("serviceAccountName"), "service accounts")
	}
	for i, s := range pod.Spec.ImagePullSecrets {
		if s.Name != "" {
			refuse(at.child("imagePullSecrets").index(i), "secrets")
		}
	}
	if len(pod.Spec.ResourceClaims) > 0 {
		refuse(at.child("resourceClaims"), "resource claims")
	}
	everyContainer(at, &pod.Spec, func(here spot, c *corev1.Container) {
		for i, from := range c.EnvFrom {
			if r := from.SecretRef; r != nil && r.Name != "" {
				refuse(here.child("envFrom").index(i).child("secretRef"), "secrets")
			}
			if r := from.ConfigMapRef; r != nil && r.Name != "" {
				refuse(here.child("envFrom").index(i).child("configMapRef"), "config maps")
			}
		}
		for i, v := range c.Env {
			if v.ValueFrom == nil {
				continue
			}
			if r := v.ValueFrom.SecretKeyRef; r != nil && r.Name != "" {
				refuse(here.child("env").index(i).child("valueFrom").child("secretKeyRef"), "secrets")
			}
			if r := v.ValueFrom.ConfigMapKeyRef; r != nil && r.Name != "" {
				refuse(here.child("env").index(i).child("valueFrom").child("configMapKeyRef"), "config maps")
			}
		}
	})
	for i := range pod.Spec.Volumes {
		for _, what := range apiObjects(&pod.Spec.Volumes[i]) {
			refuse(at.child("volumes").index(i), what)
		}
	}
	return errs
}

// apiObjects names the kinds of API objects that a volume refers to.
func apiObjects(v *corev1.Volume) []string {
	var kinds []string
	when := func(refers bool, kind string) {
		if refers {
			kinds = append(kinds, kind)
		}
	}
	named := func(ref *corev1.LocalObjectReference) bool { return ref != nil && ref.Name != "" }
	when(v.ConfigMap != nil, "config maps")
	when(v.Secret != nil || v.AzureFile != nil, "secrets")
	when(v.CSI != nil, "CSI drivers")
	when(v.Glusterfs != nil, "endpoints")
	when(v.PersistentVolumeClaim != nil || v.Ephemeral != nil, "persistent volume claims")
	when(v.CephFS != nil && named(v.CephFS.SecretRef) || v.Cinder != nil && named(v.Cinder.SecretRef) ||
		v.FlexVolume != nil && named(v.FlexVolume.SecretRef) || v.RBD != nil && named(v.RBD.SecretRef) ||
		v.ScaleIO != nil && named(v.ScaleIO.SecretRef) || v.ISCSI != nil && named(v.ISCSI.SecretRef) ||
		v.StorageOS != nil && named(v.StorageOS.SecretRef), "secrets")
	if v.Projected == nil {
		return kinds
	}
	for _, s := range v.Projected.Sources {
		// A source of a younger API level may refer to anything.
		when(s.DownwardAPI == nil || s.Secret != nil || s.ConfigMap != nil || s.ServiceAccountToken != nil ||
			s.ClusterTrustBundle != nil || s.PodCertificate != nil, "objects by projection")
	}
	return kinds
}
