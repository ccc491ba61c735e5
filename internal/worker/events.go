package worker

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
)

// Events is told what happens to pods, in kubelet's words.
type Events interface {
	// Pod tells of a pod, or of its container of that name where there is one. kind is
	// Normal or Warning. It never blocks.
	Pod(p *corev1.Pod, container, kind, reason, message string)
}

// tell reports what happened, where there is somebody to tell and a pod to tell of.
func (w *worker) tell(p *corev1.Pod, container, kind, reason, message string) {
	if w.set.cfg.Events != nil && p != nil {
		w.set.cfg.Events.Pod(p, container, kind, reason, message)
	}
}

func (w *worker) normal(p *corev1.Pod, container, reason, message string) {
	w.tell(p, container, corev1.EventTypeNormal, reason, message)
}

func (w *worker) warn(p *corev1.Pod, container, reason, message string) {
	w.tell(p, container, corev1.EventTypeWarning, reason, message)
}

// tellStart reports a step that begins, if it is one that people look for.
func (w *worker) tellStart(a pod.Action, p *corev1.Pod) {
	switch a.Kind {
	case pod.PreStop, pod.StopContainer:
		if w.ending[a.Container] {
			return // it was told when its end began
		}
		w.ending[a.Container] = true
		message := "Stopping container " + a.Name
		if a.Reason == pod.ReasonFailedPostStartHook || strings.HasPrefix(a.Reason, "Container ") { // as a probe says it
			message = a.Reason
		}
		w.normal(p, a.Name, "Killing", message)
	case pod.RunSandbox:
		if a.Attempt > 0 && w.failed[a.Op()].Count == 0 {
			w.normal(p, "", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
		}
	}
}

// tellFailure reports a step that failed.
func (w *worker) tellFailure(a pod.Action, p *corev1.Pod, f pod.Failure) {
	switch a.Kind {
	case pod.StartContainer:
		w.tellStartFailure(a, p, f)
	case pod.PostStart:
		if f.Reason == pod.ReasonFailedPostStartHook {
			w.warn(p, a.Name, f.Reason, "PostStartHook failed")
		}
	case pod.RunSandbox:
		w.warn(p, "", pod.ReasonFailedCreatePodSandBox, "Failed to create pod sandbox: "+f.Message)
	case pod.Prepare, pod.RefreshVolumes:
		w.warn(p, "", f.Reason, f.Message)
	case pod.StopContainer, pod.StopSandbox:
		w.warn(p, a.Name, "FailedKillPod", "error killing pod: "+f.Message)
	}
}

func (w *worker) tellStartFailure(a pod.Action, p *corev1.Pod, f pod.Failure) {
	image := ""
	if c := containerOf(p, a.Name); c != nil {
		image = c.Image
	}
	switch f.Reason {
	case pod.ReasonErrImagePull, pod.ReasonRegistryUnavailable, pod.ReasonSignatureValidationFailed:
		w.warn(p, a.Name, "Failed", fmt.Sprintf("Failed to pull image %q: %s", image, f.Message))
		w.warn(p, a.Name, "Failed", "Error: "+f.Reason)
		if f.Count > 1 {
			w.normal(p, a.Name, "BackOff", fmt.Sprintf("Back-off pulling image %q", image))
		}
	case pod.ReasonErrImageNeverPull:
		w.warn(p, a.Name, f.Reason, f.Message)
		w.warn(p, a.Name, "Failed", "Error: "+f.Reason)
	case pod.ReasonInvalidImageName, pod.ReasonImageInspectError:
		w.warn(p, a.Name, "InspectFailed", f.Message)
		w.warn(p, a.Name, "Failed", "Error: "+f.Reason)
	default:
		w.warn(p, a.Name, "Failed", "Error: "+f.Message)
	}
}

func containerOf(p *corev1.Pod, name string) *corev1.Container {
	if p == nil {
		return nil
	}
	return pod.ContainerOf(p, name)
}

// tellStatus reports what only the status shows: that the node refuses the pod, or does
// not begin it, that it waits for the network, and containers that wait to be restarted.
func (w *worker) tellStatus(d pod.Desired, before, now *corev1.PodStatus) {
	switch p := d.Pod; {
	case d.Rejected != nil:
		if before.Reason != now.Reason {
			w.warn(p, "", now.Reason, now.Message)
		}
		return
	case d.Unbuilt != nil && now.Reason == d.Unbuilt.Reason:
		if before.Reason != now.Reason {
			w.warn(p, "", now.Reason, now.Message)
		}
	case now.Reason == pod.ReasonNetworkNotReady && before.Reason != now.Reason:
		w.warn(p, "", now.Reason, "network is not ready: "+now.Message)
	}
	for _, all := range [][2][]corev1.ContainerStatus{
		{before.InitContainerStatuses, now.InitContainerStatuses}, {before.ContainerStatuses, now.ContainerStatuses},
	} {
		for i := range all[1] {
			c := &all[1][i]
			if backsOff(c) && !(i < len(all[0]) && all[0][i].Name == c.Name && backsOff(&all[0][i])) {
				w.warn(d.Pod, c.Name, "BackOff", fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)", c.Name, d.Pod.Name, d.Pod.Namespace, d.Pod.UID))
			}
		}
	}
}

func backsOff(c *corev1.ContainerStatus) bool {
	return c.State.Waiting != nil && c.State.Waiting.Reason == pod.ReasonCrashLoopBackOff
}
