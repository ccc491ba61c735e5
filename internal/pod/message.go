package pod

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// maxPodMessages is how many bytes the termination messages of all containers
// of a pod have together, as kubelet shares them out
// (MaxPodTerminationMessageLogLength).
const maxPodMessages = 12 << 10

// boundMessages cuts each termination message to the container's even share.
func boundMessages(s *corev1.PodStatus) {
	all := len(s.InitContainerStatuses) + len(s.ContainerStatuses) + len(s.EphemeralContainerStatuses)
	for _, list := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range list {
			cutMessage(list[i].State.Terminated, maxPodMessages/all)
			cutMessage(list[i].LastTerminationState.Terminated, maxPodMessages/all)
		}
	}
}

func cutMessage(t *corev1.ContainerStateTerminated, limit int) {
	if t != nil && len(t.Message) > limit {
		t.Message = strings.ToValidUTF8(t.Message[:limit], "")
	}
}
