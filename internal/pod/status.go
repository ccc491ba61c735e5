package pod

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Node is what a pod's status says of its node.
type Node struct {
	Addrs []netip.Addr
}

// Status tells the pod's status as kubelet would write it, from what is wanted
// and what is there. before is the status last told: a terminal phase and the
// times of conditions that did not change are kept from it.
func Status(d Desired, o Observed, node Node, before corev1.PodStatus, now time.Time) corev1.PodStatus {
	b := statusBuilder{d: d, o: o, before: before, now: now}
	s := corev1.PodStatus{
		Phase:     phaseOf(d, o),
		StartTime: before.StartTime,
		QOSClass:  QOSClass(d.Pod),
	}
	if before.Phase == corev1.PodSucceeded || before.Phase == corev1.PodFailed ||
		before.Phase == corev1.PodRunning && s.Phase == corev1.PodPending {
		s.Phase = before.Phase // a phase never goes back
	}
	if s.StartTime == nil {
		s.StartTime = &metav1.Time{Time: b.seen()}
	}
	if d.Rejected != nil {
		s.Reason, s.Message = d.Rejected.Reason, d.Rejected.Message
	}
	s.InitContainerStatuses = b.containers(d.Pod.Spec.InitContainers, true)
	s.ContainerStatuses = b.containers(d.Pod.Spec.Containers, false)
	boundMessages(&s)
	b.addresses(&s, node)
	s.Conditions = b.conditions(s, before.Conditions)
	if s.Message == "" && s.Phase == corev1.PodPending {
		s.Reason, s.Message = b.pendingBecause()
	}
	return s
}

type statusBuilder struct {
	d      Desired
	o      Observed
	before corev1.PodStatus
	now    time.Time
}

// seen is when this node first acted on the pod: its oldest sandbox knows, also
// after a restart of the daemon.
func (b *statusBuilder) seen() time.Time {
	first := b.now
	for _, s := range b.o.Sandboxes {
		if !s.Created.IsZero() && s.Created.Before(first) {
			first = s.Created
		}
	}
	return first
}

func (b *statusBuilder) addresses(s *corev1.PodStatus, node Node) {
	for _, a := range node.Addrs {
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: a.String()})
	}
	if len(s.HostIPs) > 0 {
		s.HostIP = s.HostIPs[0].IP
	}
	sandbox := b.o.newestSandbox()
	if sandbox == nil || sandbox.State != SandboxReady {
		return
	}
	addrs := sandbox.Addrs
	if b.d.Pod.Spec.HostNetwork {
		addrs = node.Addrs
	}
	for _, a := range addrs {
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: a.String()})
	}
	if len(s.PodIPs) > 0 {
		s.PodIP = s.PodIPs[0].IP
	}
}

// pendingBecause says what a pending pod as a whole waits for.
func (b *statusBuilder) pendingBecause() (reason, message string) {
	for _, kind := range []ActionKind{Prepare, RunSandbox} {
		if f, ok := b.o.Failed[Op{Kind: kind}]; ok {
			return f.Reason, f.Message
		}
	}
	if b.o.NetworkNotReady != "" && !b.d.Pod.Spec.HostNetwork && b.o.newestSandbox() == nil {
		return ReasonNetworkNotReady, b.o.NetworkNotReady
	}
	return "", ""
}

func (b *statusBuilder) containers(specs []corev1.Container, init bool) []corev1.ContainerStatus {
	var all []corev1.ContainerStatus
	for i := range specs {
		all = append(all, b.container(&specs[i], init))
	}
	slices.SortFunc(all, func(x, y corev1.ContainerStatus) int {
		if init {
			return 0 // they run in the order of the spec and are shown so
		}
		return strings.Compare(x.Name, y.Name)
	})
	return all
}

func (b *statusBuilder) container(c *corev1.Container, init bool) corev1.ContainerStatus {
	s := corev1.ContainerStatus{Name: c.Name, Image: c.Image, Started: new(false)}
	last, told := b.o.latest(c.Name), b.told(c.Name, init)
	if told != nil {
		s.RestartCount = told.RestartCount // never falls
		if b.d.Wish == WishAbsent && (last == nil || int32(last.Attempt) < told.RestartCount) {
			return *told // the newest record is gone already: the pod is on its way out
		}
	}
	if last == nil {
		if told != nil {
			s.LastTerminationState.Terminated = lastEnd(told)
		}
		s.State.Waiting = b.waiting(c.Name, init)
		return s
	}
	s.RestartCount = max(s.RestartCount, int32(last.Attempt))
	s.ContainerID = "containerd://" + last.ID
	s.ImageID = last.ImageID
	if prev := b.o.previous(c.Name); prev != nil {
		s.LastTerminationState.Terminated = terminated(prev)
	}
	switch last.State {
	case ContainerRunning:
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(last.Started)}
		h := b.o.HealthOf(c, last)
		s.Started, s.Ready = new(h.Started), h.Ready && (!init || sidecar(b.d.Pod, c))
	case ContainerExited:
		b.exited(&s, last, init)
	default:
		s.State.Waiting = b.waiting(c.Name, init)
	}
	return s
}

// told returns what was last said of a container, or nil.
func (b *statusBuilder) told(name string, init bool) *corev1.ContainerStatus {
	list := b.before.ContainerStatuses
	if init {
		list = b.before.InitContainerStatuses
	}
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

// lastEnd tells how a container ended whose record the runtime has lost: as it was
// last said to have, and in kubelet's words when it was running then.
func lastEnd(told *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	switch {
	case told.State.Terminated != nil:
		return told.State.Terminated
	case told.State.Running != nil:
		return &corev1.ContainerStateTerminated{
			ExitCode: ExitStatusUnknown, Reason: ReasonContainerStatusUnknown,
			Message:   "The container could not be located: the runtime has lost it",
			StartedAt: told.State.Running.StartedAt, ContainerID: told.ContainerID,
		}
	}
	return told.LastTerminationState.Terminated
}

// exited tells of a container whose latest run has ended: for good, or until
// its next start, which may be held back.
func (b *statusBuilder) exited(s *corev1.ContainerStatus, last *Container, init bool) {
	s.Ready = init && last.ExitCode == 0
	s.State.Terminated = terminated(last)
	policy := b.d.Pod.Spec.RestartPolicy
	if init && policy == corev1.RestartPolicyAlways {
		policy = corev1.RestartPolicyOnFailure
	}
	if b.d.Wish != WishRun || b.d.Rejected != nil || terminal(b.d, b.o) || !restarts(policy, last.ExitCode) {
		return
	}
	var waiting *corev1.ContainerStateWaiting
	if f, failed := b.o.Failed[Op{Kind: StartContainer, Object: last.Name}]; failed {
		waiting = f.waiting()
	} else if at, _ := b.o.restart(last, b.now); at.After(b.now) {
		waiting = &corev1.ContainerStateWaiting{
			Reason: ReasonCrashLoopBackOff,
			Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)",
				last.Backoff, last.Name, b.d.Pod.Name, b.d.Pod.Namespace, b.d.Pod.UID),
		}
	}
	if waiting != nil {
		s.LastTerminationState.Terminated = s.State.Terminated
		s.State = corev1.ContainerState{Waiting: waiting}
	}
}

func (b *statusBuilder) waiting(name string, init bool) *corev1.ContainerStateWaiting {
	if f, failed := b.o.Failed[Op{Kind: StartContainer, Object: name}]; failed {
		return f.waiting()
	}
	if !init && len(b.d.Pod.Spec.InitContainers) > 0 {
		return &corev1.ContainerStateWaiting{Reason: ReasonPodInitializing}
	}
	return &corev1.ContainerStateWaiting{Reason: ReasonContainerCreating}
}

// waiting tells of a failure as the state of the container that it holds up.
func (f Failure) waiting() *corev1.ContainerStateWaiting {
	reason, message := f.Reason, f.Message
	if reason == ReasonErrImagePull && f.Count > 1 {
		reason = ReasonImagePullBackOff
	}
	return &corev1.ContainerStateWaiting{Reason: reason, Message: message}
}

func terminated(c *Container) *corev1.ContainerStateTerminated {
	reason := c.Reason
	switch {
	case reason != "":
	case c.OOMKilled:
		reason = ReasonOOMKilled
	case c.ExitCode == 0:
		reason = ReasonCompleted
	default:
		reason = ReasonError
	}
	return &corev1.ContainerStateTerminated{
		ExitCode:    c.ExitCode,
		Reason:      reason,
		Message:     c.Message,
		StartedAt:   metav1.NewTime(c.Started),
		FinishedAt:  metav1.NewTime(c.Finished),
		ContainerID: "containerd://" + c.ID,
	}
}

// conditions tells B18's conditions; the time of one that kept its status is
// kept as well.
func (b *statusBuilder) conditions(s corev1.PodStatus, before []corev1.PodCondition) []corev1.PodCondition {
	sandbox := b.o.newestSandbox()
	initialised := b.initialised(s)
	ready := s.Phase == corev1.PodRunning
	for _, c := range s.ContainerStatuses {
		ready = ready && c.Ready
	}
	why, what := "ContainersNotReady", unready(s)
	if s.Phase == corev1.PodSucceeded || s.Phase == corev1.PodFailed {
		why, what = "PodCompleted", ""
		if s.Phase == corev1.PodFailed {
			why = "PodFailed"
		}
	}
	notInit := "ContainersNotInitialized"
	all := []corev1.PodCondition{
		condition(corev1.PodReadyToStartContainers, sandbox != nil && sandbox.State == SandboxReady, "", ""),
		condition(corev1.PodInitialized, initialised, notInit, ""),
		condition(corev1.PodReady, ready, why, what),
		condition(corev1.ContainersReady, ready, why, what),
		condition(corev1.PodScheduled, true, "", ""),
	}
	for i := range all {
		all[i].LastTransitionTime = metav1.NewTime(b.now)
		for _, old := range before {
			if old.Type == all[i].Type && old.Status == all[i].Status {
				all[i].LastTransitionTime = old.LastTransitionTime
			}
		}
	}
	return all
}

func (b *statusBuilder) initialised(s corev1.PodStatus) bool {
	if s.Phase == corev1.PodSucceeded || s.Phase == corev1.PodRunning {
		return true
	}
	for _, c := range s.InitContainerStatuses {
		if c.State.Terminated == nil || c.State.Terminated.ExitCode != 0 {
			return false
		}
	}
	return b.d.Rejected == nil
}

func condition(t corev1.PodConditionType, holds bool, reason, message string) corev1.PodCondition {
	if holds {
		return corev1.PodCondition{Type: t, Status: corev1.ConditionTrue}
	}
	return corev1.PodCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, Message: message}
}

func unready(s corev1.PodStatus) string {
	var names []string
	for _, c := range s.ContainerStatuses {
		if !c.Ready {
			names = append(names, c.Name)
		}
	}
	return fmt.Sprintf("containers with unready status: [%s]", strings.Join(names, " "))
}
