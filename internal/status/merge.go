package status

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
)

// own are the conditions that the node writes (kubelet's PodConditionByKubelet); all
// others are somebody else's and stay as the API server has them.
var own = []corev1.PodConditionType{
	corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady,
	corev1.ContainersReady, corev1.PodScheduled, corev1.AllContainersRestarting,
}

// merge is the status that the API server should have: what the node tells, but never
// less than what the API server has already (from an earlier daemon, which may have
// known more), and with all that is not the node's. gone tells that nothing of the pod
// is left here: then it has ended, whatever its phase was.
func merge(api, told *corev1.Pod, gone bool) corev1.PodStatus {
	have, s := &api.Status, told.Status
	if over(have.Phase) && !over(s.Phase) && !gone {
		return *have // somebody said that it has ended; its containers will have
	}
	s.NominatedNodeName, s.Resize = have.NominatedNodeName, have.Resize
	s.ResourceClaimStatuses, s.ExtendedResourceClaimStatus = have.ResourceClaimStatuses, have.ExtendedResourceClaimStatus
	s.NodeAllocatableResourceClaimStatuses, s.VolumeHealth = have.NodeAllocatableResourceClaimStatuses, have.VolumeHealth
	s.AllocatedResources, s.Resources = have.AllocatedResources, have.Resources
	if have.QOSClass != "" {
		s.QOSClass = have.QOSClass // never changes
	}
	if have.StartTime != nil {
		s.StartTime = have.StartTime
	}
	s.ObservedGeneration = max(s.ObservedGeneration, have.ObservedGeneration)
	s.InitContainerStatuses = keepRuns(have.InitContainerStatuses, s.InitContainerStatuses, over(have.Phase))
	s.ContainerStatuses = keepRuns(have.ContainerStatuses, s.ContainerStatuses, over(have.Phase))
	s.EphemeralContainerStatuses = keepRuns(have.EphemeralContainerStatuses, s.EphemeralContainerStatuses, over(have.Phase))
	switch {
	case over(have.Phase):
		s.Phase, s.Reason, s.Message = have.Phase, have.Reason, have.Message
	case gone && !isStatic(told):
		end(&s)
	case have.Phase == corev1.PodRunning && s.Phase == corev1.PodPending:
		s.Phase, s.Reason, s.Message = have.Phase, "", ""
	}
	if over(s.Phase) {
		unready(&s)
	}
	s.Conditions = mergeConditions(have, &s)
	return s
}

func over(phase corev1.PodPhase) bool {
	return phase == corev1.PodSucceeded || phase == corev1.PodFailed
}

// end makes the status of a pod of which nothing is left that of one that has ended
// (kubelet's TerminatePod): a Job waits for that before it counts the pod.
func end(s *corev1.PodStatus) {
	if !over(s.Phase) {
		s.Phase = corev1.PodFailed
	}
	initialised := conditionOf(s.Conditions, corev1.PodInitialized)
	if initialised != nil && initialised.Status == corev1.ConditionTrue {
		s.ContainerStatuses = slices.Clone(s.ContainerStatuses)
		for i := range s.ContainerStatuses {
			lose(&s.ContainerStatuses[i])
		}
	}
}

// unready makes the conditions of a pod that has ended say so.
func unready(s *corev1.PodStatus) {
	s.Conditions = slices.Clone(s.Conditions)
	for i := range s.Conditions {
		c := &s.Conditions[i]
		if (c.Type == corev1.PodReady || c.Type == corev1.ContainersReady) && c.Status == corev1.ConditionTrue {
			c.Status, c.Reason, c.Message = corev1.ConditionFalse, "PodFailed", ""
			if s.Phase == corev1.PodSucceeded {
				c.Reason = "PodCompleted"
			}
		}
	}
}

// lose tells of a container whose end nobody saw.
func lose(c *corev1.ContainerStatus) {
	if c.State.Terminated != nil {
		return
	}
	c.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: pod.ExitStatusUnknown, Reason: pod.ReasonContainerStatusUnknown,
		Message: "The container could not be located when the pod was terminated",
	}}
	c.Ready = false
}

// keepRuns takes what the node tells of containers, without forgetting what the API
// server knows of earlier runs. ended: it has the pod's end.
func keepRuns(have, told []corev1.ContainerStatus, ended bool) []corev1.ContainerStatus {
	all := slices.Clone(told)
	for i := range all {
		c := &all[i]
		at := slices.IndexFunc(have, func(h corev1.ContainerStatus) bool { return h.Name == c.Name })
		if at < 0 {
			continue
		}
		h := &have[at]
		if ended && c.State.Terminated == nil && h.State.Terminated != nil {
			*c = *h
			continue
		}
		c.RestartCount = max(c.RestartCount, h.RestartCount)
		if c.LastTerminationState.Terminated == nil {
			c.LastTerminationState.Terminated = lastEnd(h, c.ContainerID)
		}
	}
	return all
}

// lastEnd is how the run before the one with this id ended, by what the API server has.
func lastEnd(h *corev1.ContainerStatus, id string) *corev1.ContainerStateTerminated {
	switch {
	case h.ContainerID == id, h.ContainerID == "":
		return h.LastTerminationState.Terminated
	case h.State.Terminated != nil:
		return h.State.Terminated
	case h.State.Running != nil:
		return &corev1.ContainerStateTerminated{
			ExitCode: pod.ExitStatusUnknown, Reason: pod.ReasonContainerStatusUnknown,
			Message:   "The container could not be located: the runtime has lost it",
			StartedAt: h.State.Running.StartedAt, ContainerID: h.ContainerID,
		}
	}
	return h.LastTerminationState.Terminated
}

// mergeConditions takes the node's conditions, with the time of the API server where
// the status is the same, beside those of others.
func mergeConditions(have, told *corev1.PodStatus) []corev1.PodCondition {
	var all []corev1.PodCondition
	for _, c := range have.Conditions {
		if !slices.Contains(own, c.Type) {
			all = append(all, c)
		}
	}
	for _, c := range told.Conditions {
		switch known := conditionOf(have.Conditions, c.Type); {
		case slices.Contains(own, c.Type):
			if known != nil && known.Status == c.Status {
				c.LastTransitionTime = known.LastTransitionTime
			}
			all = append(all, c)
		case c.Type == corev1.DisruptionTarget && known == nil && over(told.Phase) && !over(have.Phase):
			all = append(all, c) // told with the end that it explains, as by kubelet
		}
	}
	return all
}

func conditionOf(all []corev1.PodCondition, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range all {
		if all[i].Type == t {
			return &all[i]
		}
	}
	return nil
}
