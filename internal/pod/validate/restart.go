package validate

import corev1 "k8s.io/api/core/v1"

// Bounds of KEP-5307 (restart rules of a container).
const (
	maxRestartRules = 20
	maxExitCodes    = 255
)

// checkRestartRules judges a container's own restart policy and its rules.
func checkRestartRules(at spot, c *corev1.Container) {
	switch policy := at.child("restartPolicy"); {
	case c.RestartPolicy != nil:
		oneOf(policy, *c.RestartPolicy, corev1.ContainerRestartPolicyAlways,
			corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)
	case len(c.RestartPolicyRules) > 0:
		policy.required("must specify restartPolicy when restart rules are used")
	}
	rules := at.child("restartPolicyRules")
	if n := len(c.RestartPolicyRules); n > maxRestartRules {
		rules.tooMany(n, maxRestartRules)
	}
	for i, r := range c.RestartPolicyRules {
		oneOf(rules.index(i).child("action"), r.Action,
			corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)
		codes := rules.index(i).child("exitCodes")
		if r.ExitCodes == nil {
			codes.required("must be specified")
			continue
		}
		oneOf(codes.child("operator"), r.ExitCodes.Operator,
			corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)
		if n := len(r.ExitCodes.Values); n > maxExitCodes {
			codes.child("values").tooMany(n, maxExitCodes)
		}
	}
}

// checkResizePolicy judges what happens to a container when it is resized.
func checkResizePolicy(at spot, list []corev1.ContainerResizePolicy, pod corev1.RestartPolicy) {
	resources := seen{}
	for i, p := range list {
		if resources.again(string(p.ResourceName)) {
			at.index(i).duplicate(p.ResourceName)
		}
		someOf(at.index(i), p.ResourceName, corev1.ResourceCPU, corev1.ResourceMemory)
		someOf(at.index(i), p.RestartPolicy, corev1.NotRequired, corev1.RestartContainer)
		if pod == corev1.RestartPolicyNever && p.RestartPolicy != corev1.NotRequired {
			at.index(i).invalid(p.RestartPolicy, "must be 'NotRequired' when pod `restartPolicy` is 'Never'")
		}
	}
}
