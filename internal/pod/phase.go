package pod

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// terminal tells whether the pod has ended for good: it has completed, or it has run
// for longer than it may, or its status said so before this daemon knew it: no pod
// runs twice because the node has lost what the API server still knows.
func terminal(d Desired, o Observed, now time.Time) bool {
	return Over(d.Pod.Status.Phase) || completed(d, o) || exceeded(d, o, now)
}

// completed tells whether the pod has come to its own end: an init container failed
// that may not be retried, or every container ended in a way that its restart
// policy accepts. Dead containers are kept one a name, so the answer stays the
// same over restarts of the daemon. Sidecars keep no pod from its end.
func completed(d Desired, o Observed) bool {
	spec := &d.Pod.Spec
	if o.inFlight(StartContainer) || len(o.resetters(spec, o.newestSandbox())) > 0 {
		return false
	}
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		if last := o.latest(c.Name); !isSidecar(c) && o.ended(c, last) && last.ExitCode != 0 && !retries(spec, c, last.ExitCode) {
			return true
		}
	}
	for i := range spec.Containers {
		c := &spec.Containers[i]
		if last := o.latest(c.Name); !o.ended(c, last) || shouldRestart(spec, c, last.ExitCode) {
			return false
		}
	}
	return true
}

// ended tells whether the last run of the container has ended, as the spec wants it
// and without somebody asking for another.
func (o *Observed) ended(c *corev1.Container, last *Container) bool {
	return last != nil && last.State == ContainerExited && last.Hash == ContainerHash(c) && !last.Stop.Again && !o.Again[last.ID]
}

// census counts containers by what their states say (kubelet's getPhase).
type census struct {
	initPending, initFailed            int // init containers
	sidecarPending                     int
	unknown, running, waiting          int // sidecars and containers of the pod proper
	stopped, stoppedForGood, succeeded int // containers of the pod proper
}

// phaseOf follows kubelet's getPhase over the containers' states and restart policies.
// initialised tells that a container of the pod proper was started.
func phaseOf(p *corev1.Pod, s *corev1.PodStatus, initialised, leaving bool) corev1.PodPhase {
	n := count(&p.Spec, s)
	switch {
	case n.initFailed > 0:
		return corev1.PodFailed
	case n.initPending > 0, n.sidecarPending > 0 && !initialised, n.waiting > 0:
		return corev1.PodPending
	case n.running > 0 && n.unknown == 0:
		return corev1.PodRunning
	case n.stopped == 0 || n.unknown > 0:
		return corev1.PodPending
	case n.stopped != n.stoppedForGood && !(leaving && !static(p)):
		return corev1.PodRunning // in the process of restarting
	case n.stopped == n.succeeded:
		return corev1.PodSucceeded
	}
	return corev1.PodFailed
}

func count(spec *corev1.PodSpec, s *corev1.PodStatus) (n census) {
	for i := range spec.InitContainers {
		c, told := &spec.InitContainers[i], statusOf(s.InitContainerStatuses, spec.InitContainers[i].Name)
		if isSidecar(c) {
			n.sidecar(told)
		} else {
			n.init(spec, c, told)
		}
	}
	for i := range spec.Containers {
		n.app(spec, &spec.Containers[i], statusOf(s.ContainerStatuses, spec.Containers[i].Name))
	}
	return n
}

func (n *census) init(spec *corev1.PodSpec, c *corev1.Container, told *corev1.ContainerStatus) {
	end := endOf(told)
	switch {
	case end == nil:
		n.initPending++
	case end.ExitCode != 0 && !retries(spec, c, end.ExitCode) && end.Reason != ReasonRestartingAllContainers:
		n.initFailed++
	}
}

func (n *census) sidecar(told *corev1.ContainerStatus) {
	switch {
	case told == nil:
		n.unknown++
	case told.State.Running != nil:
		if told.Started == nil || !*told.Started {
			n.sidecarPending++
		}
		n.running++
	case endOf(told) == nil: // one that has ended is not taken into account
		n.sidecarPending++
		n.waiting++
	}
}

func (n *census) app(spec *corev1.PodSpec, c *corev1.Container, told *corev1.ContainerStatus) {
	end := endOf(told)
	switch {
	case told == nil:
		n.unknown++
	case told.State.Running != nil:
		n.running++
	case end == nil:
		n.waiting++
	default:
		n.stopped++
		if !shouldRestart(spec, c, end.ExitCode) && end.Reason != ReasonRestartingAllContainers {
			n.stoppedForGood++
		}
		if told.State.Terminated != nil && end.ExitCode == 0 {
			n.succeeded++
		}
	}
}

// endOf is how a container that does not run ended, nil if it never ran.
func endOf(told *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	switch {
	case told == nil, told.State.Running != nil:
		return nil
	case told.State.Terminated != nil:
		return told.State.Terminated
	}
	return told.LastTerminationState.Terminated
}

func statusOf(list []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

// static tells whether the pod is a file's.
func static(p *corev1.Pod) bool {
	source, known := p.Annotations[annotationSource]
	return known && source != "api"
}
