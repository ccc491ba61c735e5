package pod

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// own are the conditions that the node writes (kubelet's PodConditionByKubelet);
// every other one is somebody else's, and kept.
var own = []corev1.PodConditionType{
	corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady,
	corev1.ContainersReady, corev1.PodScheduled, corev1.AllContainersRestarting,
}

// OwnCondition tells whether the node writes the condition.
func OwnCondition(c corev1.PodConditionType) bool { return slices.Contains(own, c) }

// conditions tells the node's conditions with kubelet's reasons, beside those of
// others; the time of one that kept its status is kept as well.
func (b *statusBuilder) conditions(s *corev1.PodStatus) []corev1.PodCondition {
	sandbox := b.o.newestSandbox()
	var foreign []corev1.PodCondition
	told := b.before.Conditions
	if has := b.d.Pod.Status.Conditions; len(has) > 0 {
		told = has // others write theirs there
	}
	for _, c := range told {
		if !OwnCondition(c.Type) {
			foreign = append(foreign, c)
		}
	}
	ready := b.containersReady(s)
	all := []corev1.PodCondition{
		condition(corev1.PodReadyToStartContainers, sandbox != nil && sandbox.State == SandboxReady, "", ""),
		b.initializedCondition(s),
		b.ready(ready, foreign),
		ready,
		condition(corev1.PodScheduled, true, "", ""),
	}
	if couldReset(&b.d.Pod.Spec) {
		all = append(all, b.restartingAll(s))
	}
	if e := b.d.Ended; e != nil && Over(s.Phase) && s.Reason == e.Reason {
		foreign = slices.DeleteFunc(foreign, func(c corev1.PodCondition) bool { return c.Type == corev1.DisruptionTarget })
		all = append(all, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonTerminationByKubelet, Message: e.Message,
		})
	}
	for i := range all {
		all[i].LastTransitionTime = metav1.NewTime(b.now)
		all[i].ObservedGeneration = b.d.Pod.Generation
		for _, old := range b.before.Conditions {
			if old.Type == all[i].Type && old.Status == all[i].Status {
				all[i].LastTransitionTime = old.LastTransitionTime
			}
		}
	}
	return append(foreign, all...)
}

// containersReady: every container of the pod proper and every sidecar is ready.
func (b *statusBuilder) containersReady(s *corev1.PodStatus) corev1.PodCondition {
	var unready []string
	for _, c := range slices.Concat(b.d.Pod.Spec.InitContainers, b.d.Pod.Spec.Containers) {
		told := statusOf(s.ContainerStatuses, c.Name)
		if told == nil && isSidecar(&c) {
			told = statusOf(s.InitContainerStatuses, c.Name)
		}
		if told != nil && !told.Ready {
			unready = append(unready, c.Name)
		}
	}
	switch {
	case Over(s.Phase):
		return condition(corev1.ContainersReady, false, completedAs(s.Phase), "")
	case len(unready) > 0:
		return condition(corev1.ContainersReady, false, "ContainersNotReady", "containers with unready status: "+fmt.Sprint(unready))
	}
	return condition(corev1.ContainersReady, true, "", "")
}

// ready: the containers are, and every readiness gate is open. A gate is a condition
// that somebody else writes.
func (b *statusBuilder) ready(containers corev1.PodCondition, foreign []corev1.PodCondition) corev1.PodCondition {
	containers.Type = corev1.PodReady
	if containers.Status != corev1.ConditionTrue {
		return containers
	}
	var closed []string
	for _, gate := range b.d.Pod.Spec.ReadinessGates {
		at := slices.IndexFunc(foreign, func(c corev1.PodCondition) bool { return c.Type == gate.ConditionType })
		switch {
		case at < 0:
			closed = append(closed, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", string(gate.ConditionType)))
		case foreign[at].Status != corev1.ConditionTrue:
			closed = append(closed, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", string(gate.ConditionType), foreign[at].Status))
		}
	}
	return condition(corev1.PodReady, len(closed) == 0, "ReadinessGatesNotReady", strings.Join(closed, ", "))
}

// initializedCondition: every init container has succeeded, or has started where it
// is a sidecar; once they had, it stays so for as long as the sandbox does.
func (b *statusBuilder) initializedCondition(s *corev1.PodStatus) corev1.PodCondition {
	if s.Phase == corev1.PodSucceeded {
		c := condition(corev1.PodInitialized, true, "", "")
		c.Reason = completedAs(s.Phase)
		return c
	}
	if b.initialised() {
		return condition(corev1.PodInitialized, true, "", "")
	}
	var incomplete []string
	for i := range b.d.Pod.Spec.InitContainers {
		c := &b.d.Pod.Spec.InitContainers[i]
		told := statusOf(s.InitContainerStatuses, c.Name)
		if done := told.Ready; !done && !isSidecar(c) || isSidecar(c) && !*told.Started {
			incomplete = append(incomplete, c.Name)
		}
	}
	return condition(corev1.PodInitialized, len(incomplete) == 0, "ContainersNotInitialized", "containers with incomplete status: "+fmt.Sprint(incomplete))
}

// couldReset tells whether a rule of the pod may restart all its containers.
func couldReset(spec *corev1.PodSpec) bool {
	return slices.ContainsFunc(slices.Concat(spec.InitContainers, spec.Containers), func(c corev1.Container) bool {
		return slices.ContainsFunc(c.RestartPolicyRules, func(r corev1.ContainerRestartRule) bool {
			return r.Action == corev1.ContainerRestartRuleActionRestartAllContainers
		})
	})
}

func (b *statusBuilder) restartingAll(s *corev1.PodStatus) corev1.PodCondition {
	switch {
	case Over(s.Phase):
		return condition(corev1.AllContainersRestarting, false, completedAs(s.Phase), "")
	case !b.resetting():
		return condition(corev1.AllContainersRestarting, false, "", "")
	}
	c := condition(corev1.AllContainersRestarting, true, "", "")
	c.Reason, c.Message = "RestartAllContainersStarted", "container exited with restart policy rule"
	return c
}

func condition(t corev1.PodConditionType, holds bool, reason, message string) corev1.PodCondition {
	if holds {
		return corev1.PodCondition{Type: t, Status: corev1.ConditionTrue}
	}
	return corev1.PodCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, Message: message}
}

func completedAs(phase corev1.PodPhase) string {
	if phase == corev1.PodFailed {
		return "PodFailed"
	}
	return "PodCompleted"
}
