package pod

import (
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Node is what a pod's status says of its node.
type Node struct {
	Addrs []netip.Addr
}

// Status tells the pod's status as kubelet would write it, from what is wanted
// and what is there. before is the status last told: a terminal phase, the times of
// conditions that did not change and conditions that are not the node's are kept from
// it.
func Status(d Desired, o Observed, node Node, before corev1.PodStatus, now time.Time) corev1.PodStatus {
	b := statusBuilder{d: d, o: o, before: before, now: now}
	spec := &d.Pod.Spec
	s := corev1.PodStatus{
		ObservedGeneration: d.Pod.Generation,
		StartTime:          b.startTime(),
		QOSClass:           QOSClass(d.Pod),
	}
	s.InitContainerStatuses = b.containers(spec.InitContainers, isInit)
	s.ContainerStatuses = b.containers(spec.Containers, isApp)
	s.EphemeralContainerStatuses = b.containers(ephemerals(spec), isEphemeral)
	b.phase(&s)
	if Over(s.Phase) && d.Rejected == nil {
		b.terminate(&s)
	}
	boundMessages(&s)
	b.addresses(&s, node)
	s.Conditions = b.conditions(&s)
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

// startTime is when this node first acted on the pod.
func (b *statusBuilder) startTime() *metav1.Time {
	first := b.o.started()
	if first.IsZero() {
		first = b.now
	}
	if told := b.before.StartTime; told != nil && !first.Before(told.Time) {
		return told
	}
	return &metav1.Time{Time: first}
}

// messageRejected begins the message of a pod that is not admitted, as kubelet's.
const messageRejected = "Pod was rejected: "

// phase tells the phase and what there is to say about it. A phase never goes back, and
// no pod is over while a process of it lives (kubelet's status manager).
func (b *statusBuilder) phase(s *corev1.PodStatus) {
	told := b.before.Phase
	leaving := b.d.Wish == WishAbsent && !b.o.anyRunning()
	s.Phase = phaseOf(b.d.Pod, s, b.initialised(), leaving)
	if Over(s.Phase) && !leaving && !completed(b.d, b.o) {
		s.Phase = corev1.PodRunning // it is about to go on: somebody asked for a restart
	}
	if exceeded(b.d, b.o, b.now) {
		s.Phase, s.Reason, s.Message = corev1.PodFailed, ReasonDeadlineExceeded, messageDeadline
	}
	if e := b.d.Ended; e != nil {
		s.Reason, s.Message = e.Reason, e.Message
		if s.Phase != corev1.PodSucceeded {
			s.Phase = corev1.PodFailed
		}
	}
	if b.d.Rejected != nil {
		s.Phase, s.Reason, s.Message = corev1.PodFailed, b.d.Rejected.Reason, messageRejected+b.d.Rejected.Message
	}
	switch {
	case Over(told):
		s.Phase, s.Reason, s.Message = told, b.before.Reason, b.before.Message
	case Over(s.Phase) && b.o.anyRunning() && b.d.Rejected == nil:
		s.Phase, s.Reason, s.Message = corev1.PodRunning, "", ""
		if told != "" {
			s.Phase = told
		} else if !b.initialised() {
			s.Phase = corev1.PodPending
		}
	case told == corev1.PodRunning && s.Phase == corev1.PodPending:
		s.Phase = told
	}
}

// initialised tells whether a container of the pod proper was started in the sandbox
// that there is: then its init containers are through, and stay so.
func (b *statusBuilder) initialised() bool {
	p := planner{d: b.d, o: b.o}
	s := b.o.newestSandbox()
	return s != nil && p.anyStarted(s)
}

// Over tells whether the phase is final.
func Over(phase corev1.PodPhase) bool {
	return phase == corev1.PodSucceeded || phase == corev1.PodFailed
}

// terminate tells of the containers that never ran in a pod that is over and was
// initialised what kubelet tells: that they could not be found.
func (b *statusBuilder) terminate(s *corev1.PodStatus) {
	if n := len(s.InitContainerStatuses); n > 0 && !b.initialised() {
		if end := endOf(&s.InitContainerStatuses[n-1]); end == nil || end.ExitCode != 0 {
			return
		}
	}
	for i := range s.ContainerStatuses {
		c := &s.ContainerStatuses[i]
		if c.State.Terminated != nil || c.State.Running != nil {
			continue
		}
		c.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ExitCode: ExitStatusUnknown, Reason: ReasonContainerStatusUnknown,
			Message: "The container could not be located when the pod was terminated",
		}}
	}
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
	if r := b.d.unbuilt(&b.o); r != nil {
		return r.Reason, r.Message
	}
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
