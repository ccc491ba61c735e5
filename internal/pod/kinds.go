package pod

import (
	corev1 "k8s.io/api/core/v1"
)

// VolumePlugin is what kubelet calls the kind of a volume, "" of one that is not built. A
// claim counts as a local volume: which kind is behind it is not the pod's to say.
func VolumePlugin(vol *corev1.Volume) string {
	switch {
	case vol.EmptyDir != nil:
		return "kubernetes.io/empty-dir"
	case vol.HostPath != nil:
		return "kubernetes.io/host-path"
	case vol.ConfigMap != nil:
		return "kubernetes.io/configmap"
	case vol.Secret != nil:
		return "kubernetes.io/secret"
	case vol.DownwardAPI != nil:
		return "kubernetes.io/downward-api"
	case vol.Projected != nil:
		return "kubernetes.io/projected"
	case vol.PersistentVolumeClaim != nil, vol.Ephemeral != nil:
		return "kubernetes.io/local-volume"
	}
	return ""
}

// ContainerType is what kubelet's figures call the kind of a container of the pod.
func ContainerType(p *corev1.Pod, name string) string {
	for i := range p.Spec.InitContainers {
		if p.Spec.InitContainers[i].Name == name {
			return "init_container"
		}
	}
	for i := range p.Spec.EphemeralContainers {
		if p.Spec.EphemeralContainers[i].Name == name {
			return "ephemeral_container"
		}
	}
	return "container"
}
