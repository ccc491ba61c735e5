package pod

import (
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	scheduling "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/storage/ephemeral"
)

// ClaimName is the name of the PersistentVolumeClaim behind a volume of the pod,
// its own or the one that was made for it; "" for a volume of another kind.
func ClaimName(p *corev1.Pod, vol *corev1.Volume) string {
	switch {
	case vol.PersistentVolumeClaim != nil:
		return vol.PersistentVolumeClaim.ClaimName
	case vol.Ephemeral != nil:
		return ephemeral.VolumeClaimName(p, vol)
	}
	return ""
}

// protected is the finalizer of a claim that some pod uses.
const protected = "kubernetes.io/pvc-protection"

// ClaimBound tells whether the claim has its volume; nil means yes. The words
// are kubelet's (getPVCExtractPV).
func ClaimBound(c *corev1.PersistentVolumeClaim) error {
	switch {
	case c.DeletionTimestamp != nil && !slices.Contains(c.Finalizers, protected):
		return errors.New("PVC is being deleted")
	case c.Status.Phase != corev1.ClaimBound:
		return errors.New("PVC is not bound")
	case c.Spec.VolumeName == "":
		return errors.New("PVC has empty pvc.Spec.VolumeName")
	}
	return nil
}

// VolumeOfClaim tells whether the volume is the claim's; nil means yes. The words
// are kubelet's (getPVSpec).
func VolumeOfClaim(pv *corev1.PersistentVolume, c *corev1.PersistentVolumeClaim) error {
	switch {
	case pv.Spec.ClaimRef == nil:
		return fmt.Errorf("found PV object %s but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim", pv.Name)
	case pv.Spec.ClaimRef.UID != c.UID:
		return fmt.Errorf("found PV object %s but its pv.Spec.ClaimRef.UID %s does not point to claim.UID %s", pv.Name, pv.Spec.ClaimRef.UID, c.UID)
	}
	return nil
}

// UsableClaim tells whether this node can give the pod a volume that the claim is
// bound to; nil means yes. What is refused is named.
func UsableClaim(p *corev1.Pod, vol *corev1.Volume, c *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume, labels map[string]string) error {
	if vol.Ephemeral != nil {
		if err := ephemeral.VolumeIsForPod(p, c); err != nil {
			return err
		}
	}
	if mode := pv.Spec.VolumeMode; mode != nil && *mode != corev1.PersistentVolumeFilesystem {
		return fmt.Errorf("volume %s has volumeMode %s, which this node does not serve: PV %s of PVC %s/%s", vol.Name, *mode, pv.Name, c.Namespace, c.Name)
	}
	if kind := setField(&pv.Spec.PersistentVolumeSource); kind != "hostPath" && kind != "local" {
		return fmt.Errorf("PV %s of PVC %s/%s is of the kind %q, which this node does not mount: it mounts hostPath and local", pv.Name, c.Namespace, c.Name, kind)
	}
	if l := pv.Spec.Local; l != nil && l.FSType != nil && *l.FSType != "" {
		return fmt.Errorf("PV %s of PVC %s/%s sets local.fsType: this node mounts directories and formats no device", pv.Name, c.Namespace, c.Name)
	}
	if len(pv.Spec.MountOptions) > 0 {
		return fmt.Errorf("PV %s of PVC %s/%s sets mountOptions, which a %s volume does not have on this node", pv.Name, c.Namespace, c.Name, setField(&pv.Spec.PersistentVolumeSource))
	}
	if err := reachable(pv, labels); err != nil {
		return fmt.Errorf("MountVolume.NodeAffinity check failed for volume %q : %w", pv.Name, err)
	}
	return nil
}

// reachable tells whether the volume is for nodes with these labels.
func reachable(pv *corev1.PersistentVolume, labels map[string]string) error {
	if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return nil
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: labels}}
	matches, err := scheduling.MatchNodeSelectorTerms(node, pv.Spec.NodeAffinity.Required)
	if err == nil && !matches {
		err = errors.New("no matching NodeSelectorTerms")
	}
	return err
}
