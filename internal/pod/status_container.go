package pod

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ephemerals are a pod's ephemeral containers as containers.
func ephemerals(spec *corev1.PodSpec) []corev1.Container {
	var all []corev1.Container
	for i := range spec.EphemeralContainers {
		all = append(all, corev1.Container(spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
	return all
}

func (b *statusBuilder) containers(specs []corev1.Container, as role) []corev1.ContainerStatus {
	var all []corev1.ContainerStatus
	for i := range specs {
		all = append(all, b.container(&specs[i], as))
	}
	if as != isInit { // those run in the order of the spec and are shown so
		slices.SortFunc(all, func(x, y corev1.ContainerStatus) int { return strings.Compare(x.Name, y.Name) })
	}
	return all
}

func (b *statusBuilder) container(c *corev1.Container, as role) corev1.ContainerStatus {
	s := corev1.ContainerStatus{Name: c.Name, Image: c.Image, Started: new(false)}
	if as == isEphemeral {
		s.Started = nil // nobody asks whether one is started or ready
	}
	last, told := b.o.latest(c.Name), b.told(c.Name, as)
	if told != nil {
		s.RestartCount = told.RestartCount // never falls
		if b.d.Wish == WishAbsent && (last == nil || int32(last.Attempt) < told.RestartCount) {
			return *told // the newest record is gone already: the pod is on its way out
		}
	}
	if last == nil {
		b.lost(&s, told)
		if s.State.Waiting == nil {
			s.State.Waiting = b.waiting(c)
		}
		return s
	}
	s.RestartCount = max(s.RestartCount, int32(last.Attempt))
	s.ContainerID = idPrefix + last.ID
	s.ImageID = last.ImageID
	s.VolumeMounts = volumeMounts(c, last)
	// Nothing is resized in place, so a run has what its spec says.
	s.Resources = &corev1.ResourceRequirements{Limits: c.Resources.Limits, Requests: c.Resources.Requests}
	s.AllocatedResources = c.Resources.Requests
	if last.User != nil {
		s.User = &corev1.ContainerUser{Linux: last.User}
	}
	s.LastTerminationState.Terminated = b.previousEnd(last, told)
	switch {
	case last.hooking():
		s.State.Waiting = b.hooking(last)
	case last.State == ContainerRunning:
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(last.Started)}
		if h := b.o.HealthOf(c, last); as != isEphemeral {
			s.Started, s.Ready = new(h.Started), h.Ready && (as != isInit || isSidecar(c))
		}
	case last.State == ContainerExited:
		b.exited(&s, c, last, as)
	default:
		s.State.Waiting = b.waiting(c)
	}
	return s
}

const idPrefix = "containerd://"

// lost tells of a container of which the runtime has no record.
func (b *statusBuilder) lost(s, told *corev1.ContainerStatus) {
	if told == nil {
		return
	}
	s.LastTerminationState.Terminated = lastEnd(told)
	if told.State.Waiting == nil && b.resetting() || isReset(told) && told.State.Waiting != nil && told.State.Waiting.Reason == ReasonRestartingAllContainers {
		s.State.Waiting = &corev1.ContainerStateWaiting{Reason: ReasonRestartingAllContainers, Message: messageReset}
		s.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{
			ExitCode: ExitStatusUnknown, Reason: ReasonRestartingAllContainers, Message: messageReset,
		}
		if told.State.Waiting == nil {
			s.RestartCount++
		}
	}
}

const messageReset = "The container is removed because RestartAllContainers in place"

func isReset(told *corev1.ContainerStatus) bool {
	end := told.LastTerminationState.Terminated
	return end != nil && end.Reason == ReasonRestartingAllContainers
}

// resetting tells whether all containers are being restarted.
func (b *statusBuilder) resetting() bool {
	return len(b.o.resetters(&b.d.Pod.Spec, b.o.newestSandbox())) > 0
}

// previousEnd is how the run before this one ended: by its record, else as it was last
// told.
func (b *statusBuilder) previousEnd(last *Container, told *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	switch prev := b.o.previous(last.Name); {
	case prev != nil:
		return terminated(prev)
	case told == nil:
		return nil
	case told.ContainerID != "" && told.ContainerID != idPrefix+last.ID && told.State.Terminated != nil:
		return told.State.Terminated
	}
	return told.LastTerminationState.Terminated
}

// hooking tells of a run whose postStart hook has not ended: it counts as not started
// until then.
func (b *statusBuilder) hooking(run *Container) *corev1.ContainerStateWaiting {
	if f, failed := b.o.Failed[Op{Kind: PostStart, Object: run.ID}]; failed {
		return &corev1.ContainerStateWaiting{Reason: ReasonPostStartHookError, Message: f.Message}
	}
	return &corev1.ContainerStateWaiting{Reason: b.notYet()}
}

// told returns what was last said of a container, or nil.
func (b *statusBuilder) told(name string, as role) *corev1.ContainerStatus {
	switch as {
	case isInit:
		return statusOf(b.before.InitContainerStatuses, name)
	case isEphemeral:
		return statusOf(b.before.EphemeralContainerStatuses, name)
	}
	return statusOf(b.before.ContainerStatuses, name)
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
func (b *statusBuilder) exited(s *corev1.ContainerStatus, c *corev1.Container, last *Container, as role) {
	s.Ready = as == isInit && !isSidecar(c) && last.ExitCode == 0
	s.State.Terminated = terminated(last)
	if b.d.Wish != WishRun || b.d.Rejected != nil || b.d.Ended != nil || terminal(b.d, b.o, b.now) || !runsAgain(&b.d.Pod.Spec, c, last.ExitCode, as) {
		return
	}
	var waiting *corev1.ContainerStateWaiting
	if f, failed := b.o.Failed[Op{Kind: StartContainer, Object: last.Name}]; failed {
		waiting = f.waiting(c.Image)
	} else if at, _ := b.o.restart(last, b.now); at.After(b.now) && !last.Stop.Again && !b.o.Again[last.ID] {
		waiting = &corev1.ContainerStateWaiting{
			Reason: ReasonCrashLoopBackOff,
			Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)",
				last.Backoff, last.Name, b.d.Pod.Name, b.d.Pod.Namespace, b.d.Pod.UID),
		}
	} else if f, failed := b.o.Failed[Op{Kind: PostStart, Object: last.ID}]; failed {
		waiting = &corev1.ContainerStateWaiting{Reason: ReasonPostStartHookError, Message: f.Message}
	}
	if waiting != nil {
		s.LastTerminationState.Terminated = s.State.Terminated
		s.State = corev1.ContainerState{Waiting: waiting}
	}
}

func (b *statusBuilder) waiting(c *corev1.Container) *corev1.ContainerStateWaiting {
	if r := b.d.unbuilt(&b.o); r != nil {
		return &corev1.ContainerStateWaiting{Reason: r.Reason, Message: r.Message}
	}
	if f, failed := b.o.Failed[Op{Kind: StartContainer, Object: c.Name}]; failed {
		return f.waiting(c.Image)
	}
	return &corev1.ContainerStateWaiting{Reason: b.notYet()}
}

// notYet is what a container waits for that was not started yet, and nothing is wrong
// with.
func (b *statusBuilder) notYet() string {
	if len(b.d.Pod.Spec.InitContainers) > 0 {
		return ReasonPodInitializing
	}
	return ReasonContainerCreating
}

// waiting tells of a failure as the state of the container that it holds up.
func (f Failure) waiting(image string) *corev1.ContainerStateWaiting {
	reason, message := f.Reason, f.Message
	if f.pull() && f.Count > 1 {
		// as kubelet: what the back-off is for is told with it
		message = fmt.Sprintf("Back-off pulling image %q: %s: %s", image, reason, message)
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
		ContainerID: idPrefix + c.ID,
	}
}
