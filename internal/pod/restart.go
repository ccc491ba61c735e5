package pod

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// shouldRestart tells whether a container that exited with the code starts again:
// by the first of its own rules that fits, else by its own policy, else by the
// pod's (kubelet's ContainerShouldRestart; KEP-5307).
func shouldRestart(spec *corev1.PodSpec, c *corev1.Container, code int32) bool {
	if c.RestartPolicy == nil {
		return restarts(spec.RestartPolicy, code)
	}
	if _, fits := restartRule(c, code); fits {
		return true // each of the two actions starts the container again
	}
	return restarts(corev1.RestartPolicy(*c.RestartPolicy), code)
}

// retries is the same for an init container, which runs until it has succeeded.
func retries(spec *corev1.PodSpec, c *corev1.Container, code int32) bool {
	return code != 0 && shouldRestart(spec, c, code)
}

// restartRule finds the first rule of the container that fits the exit code.
func restartRule(c *corev1.Container, code int32) (corev1.ContainerRestartRuleAction, bool) {
	if c.RestartPolicy == nil {
		return "", false
	}
	for _, r := range c.RestartPolicyRules {
		if r.ExitCodes == nil {
			continue
		}
		in := slices.Contains(r.ExitCodes.Values, code)
		if in == (r.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn) {
			return r.Action, true
		}
	}
	return "", false
}

// restarts tells whether the policy starts a container again that exited with the
// code.
func restarts(policy corev1.RestartPolicy, code int32) bool {
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return code != 0
	default:
		return true
	}
}

// Restartable names the containers of the pod that can be restarted by somebody's wish:
// those of the pod proper and the sidecars. The others run once.
func Restartable(p *corev1.Pod) []string {
	var names []string
	for i := range p.Spec.InitContainers {
		if isSidecar(&p.Spec.InitContainers[i]) {
			names = append(names, p.Spec.InitContainers[i].Name)
		}
	}
	for i := range p.Spec.Containers {
		names = append(names, p.Spec.Containers[i].Name)
	}
	return names
}

// isSidecar tells whether an init container goes on beside the containers of the
// pod proper.
func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}
