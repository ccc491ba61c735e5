package pod

import (
	corev1 "k8s.io/api/core/v1"
)

// terminal tells whether the pod has ended for good: an init container failed
// that may not be retried, or every container ended in a way that its restart
// policy accepts. Dead containers are kept one a name, so the answer stays the
// same over restarts of the daemon.
func terminal(d Desired, o Observed) bool {
	spec := &d.Pod.Spec
	if o.inFlight(StartContainer) {
		return false
	}
	if spec.RestartPolicy == corev1.RestartPolicyNever {
		for i := range spec.InitContainers {
			c := o.latest(spec.InitContainers[i].Name)
			if c != nil && c.State == ContainerExited && c.ExitCode != 0 && c.Hash == ContainerHash(&spec.InitContainers[i]) {
				return true
			}
		}
	}
	for i := range spec.Containers {
		c := o.latest(spec.Containers[i].Name)
		if c == nil || c.State != ContainerExited || restarts(spec.RestartPolicy, c.ExitCode) || c.Hash != ContainerHash(&spec.Containers[i]) {
			return false
		}
	}
	return true
}

// phaseOf follows kubelet's getPhase over container states and restart policy.
func phaseOf(d Desired, o Observed) corev1.PodPhase {
	spec := &d.Pod.Spec
	if d.Rejected != nil {
		return corev1.PodFailed
	}
	if terminal(d, o) {
		for i := range spec.InitContainers {
			if c := o.latest(spec.InitContainers[i].Name); c != nil && c.State == ContainerExited && c.ExitCode != 0 {
				return corev1.PodFailed
			}
		}
		for i := range spec.Containers {
			if o.latest(spec.Containers[i].Name).ExitCode != 0 {
				return corev1.PodFailed
			}
		}
		return corev1.PodSucceeded
	}
	for i := range spec.Containers {
		c := o.latest(spec.Containers[i].Name)
		if c == nil || c.State == ContainerCreated {
			return corev1.PodPending
		}
	}
	return corev1.PodRunning
}
