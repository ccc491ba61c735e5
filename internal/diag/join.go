package diag

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
)

// wantedPod is a pod that somebody asks for, with what the runtime holds of it.
func wantedPod(p *corev1.Pod, s pod.RuntimeState) Pod {
	out := Pod{
		Namespace: p.Namespace, Name: p.Name, UID: string(p.UID), Wanted: true,
		Phase: string(p.Status.Phase), Reason: p.Status.Reason, Message: p.Status.Message,
		Total: len(p.Spec.Containers), HostNetwork: p.Spec.HostNetwork,
		QOSClass: string(p.Status.QOSClass), IPs: []string{}, spec: p,
	}
	if p.Status.StartTime != nil {
		out.Created = instant(p.Status.StartTime.Time)
	}
	for _, ip := range p.Status.PodIPs {
		out.IPs = append(out.IPs, ip.IP)
	}
	out.addRuntime(s)
	for i := range p.Spec.InitContainers {
		out.addStatus(p.Spec.InitContainers[i].Name, p.Spec.InitContainers[i].Image, true, p.Status.InitContainerStatuses)
	}
	for i := range p.Spec.Containers {
		out.addStatus(p.Spec.Containers[i].Name, p.Spec.Containers[i].Image, false, p.Status.ContainerStatuses)
	}
	for i := range p.Status.ContainerStatuses {
		if p.Status.ContainerStatuses[i].Ready {
			out.Ready++
		}
		out.Restarts += int(p.Status.ContainerStatuses[i].RestartCount)
	}
	for i := range p.Status.InitContainerStatuses {
		out.Restarts += int(p.Status.InitContainerStatuses[i].RestartCount)
	}
	out.Status = podWord(p)
	out.explain(p)
	return out
}

// foundPod is a pod of which only the runtime knows: its manifest is gone and
// it has not been removed yet, or nobody could read it.
func foundPod(s pod.RuntimeState) Pod {
	out := Pod{Namespace: s.Namespace, Name: s.Name, UID: string(s.UID), Phase: "Unknown", Status: "NotWanted", IPs: []string{}}
	out.addRuntime(s)
	names := map[string]bool{}
	for i := range out.Containers {
		c := &out.Containers[i]
		if !c.Latest {
			continue
		}
		if !c.Init {
			names[c.Name] = true
		}
		out.Restarts += int(c.Attempt)
		if c.Running() {
			out.Ready++
			c.Ready = true
		}
	}
	out.Total = len(names)
	for _, sb := range s.Sandboxes {
		if out.Created == nil || sb.Created.Before(*out.Created) {
			out.Created = instant(sb.Created)
		}
		if sb.State == pod.SandboxReady {
			out.HostNetwork = sb.HostNetwork
		}
	}
	for i := range out.Sandboxes {
		if out.Sandboxes[i].State == string(pod.SandboxReady) {
			out.IPs = out.Sandboxes[i].IPs
		}
	}
	return out
}

// addRuntime adds what the runtime holds.
func (p *Pod) addRuntime(s pod.RuntimeState) {
	p.Sandboxes, p.Containers = []Sandbox{}, []Container{}
	for _, sb := range s.Sandboxes {
		v := Sandbox{
			ID: sb.ID, Attempt: sb.Attempt, State: string(sb.State), Reason: sb.Reason,
			Created: instant(sb.Created), Netns: sb.Netns, IPs: []string{},
		}
		for _, a := range sb.Addrs {
			v.IPs = append(v.IPs, a.String())
		}
		p.Sandboxes = append(p.Sandboxes, v)
	}
	latest := map[string]int{}
	for i := range s.Containers {
		c := &s.Containers[i]
		v := Container{
			ID: c.ID, Name: c.Name, SandboxID: c.SandboxID, Init: c.Init, Attempt: c.Attempt,
			Image: c.Image, ImageID: c.ImageID, State: string(c.State), Pid: c.Pid, LogPath: c.LogPath,
			Created: instant(c.Created), Started: instant(c.Started), Finished: instant(c.Finished),
			Reason: c.Reason, Message: c.Message, OOMKilled: c.OOMKilled,
		}
		if c.State == pod.ContainerExited {
			v.ExitCode = &c.ExitCode
		}
		if j, seen := latest[c.Name]; !seen || newerRun(&v, &p.Containers[j]) {
			latest[c.Name] = len(p.Containers)
		}
		p.Containers = append(p.Containers, v)
	}
	for _, i := range latest {
		p.Containers[i].Latest = true
	}
	slices.SortStableFunc(p.Containers, func(a, b Container) int {
		return cmp.Or(timeOf(a.Created).Compare(timeOf(b.Created)), strings.Compare(a.ID, b.ID))
	})
}

func newerRun(a, b *Container) bool {
	if a.Attempt != b.Attempt {
		return a.Attempt > b.Attempt
	}
	return timeOf(a.Created).After(timeOf(b.Created))
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// addStatus joins the status of a container of the spec with its latest run, or
// adds it as one that is awaited.
func (p *Pod) addStatus(name, image string, init bool, all []corev1.ContainerStatus) {
	var status corev1.ContainerStatus
	if i := slices.IndexFunc(all, func(s corev1.ContainerStatus) bool { return s.Name == name }); i >= 0 {
		status = all[i]
	}
	i := slices.IndexFunc(p.Containers, func(c Container) bool { return c.Latest && c.Name == name })
	if i < 0 {
		p.Containers = append(p.Containers, Container{Name: name, Image: image, Init: init, Latest: true, State: "Waiting"})
		i = len(p.Containers) - 1
		p.Containers[i].fromStatus(status)
	}
	c := &p.Containers[i]
	c.Ready = status.Ready
	if w := status.State.Waiting; w != nil && c.State == "Exited" {
		c.Wait = w.Reason
		if w.Message != "" {
			c.Wait += ": " + w.Message
		}
	}
}

// fromStatus fills a container that only the daemon knows: not yet made, or
// containerd does not answer.
func (c *Container) fromStatus(s corev1.ContainerStatus) {
	c.ID = strings.TrimPrefix(s.ContainerID, "containerd://")
	c.ImageID, c.Attempt = s.ImageID, uint32(max(s.RestartCount, 0))
	switch {
	case s.State.Running != nil:
		c.State, c.Started = "Running", instant(s.State.Running.StartedAt.Time)
	case s.State.Terminated != nil:
		c.State = "Exited"
		c.ended(s.State.Terminated)
	case s.State.Waiting != nil:
		c.Reason, c.Message = s.State.Waiting.Reason, s.State.Waiting.Message
		if last := s.LastTerminationState.Terminated; last != nil && c.ID != "" {
			c.State = "Exited"
			c.ended(last)
		}
	}
}

func (c *Container) ended(t *corev1.ContainerStateTerminated) {
	c.ExitCode, c.Reason, c.Message = &t.ExitCode, t.Reason, t.Message
	c.Started, c.Finished = instant(t.StartedAt.Time), instant(t.FinishedAt.Time)
	c.OOMKilled = t.Reason == pod.ReasonOOMKilled
}

// explain finds the message that says why a pod is not ready, where the pod as
// a whole has none.
func (p *Pod) explain(from *corev1.Pod) {
	if p.Message != "" {
		return
	}
	for _, s := range slices.Concat(from.Status.InitContainerStatuses, from.Status.ContainerStatuses) {
		if w := s.State.Waiting; w != nil && w.Message != "" {
			p.Reason, p.Message = cmp.Or(p.Reason, w.Reason), w.Message
			return
		}
	}
}

// podWord is the one word that kubectl shows as a pod's status (printPod of
// k8s.io/kubernetes/pkg/printers/internalversion): the first reason that keeps
// it from running.
func podWord(p *corev1.Pod) string {
	word := cmp.Or(p.Status.Reason, string(p.Status.Phase))
	for i, s := range p.Status.InitContainerStatuses {
		switch {
		case s.State.Terminated != nil && s.State.Terminated.ExitCode == 0:
			continue
		case s.State.Terminated != nil:
			return deleting(p, "Init:"+cmp.Or(s.State.Terminated.Reason, "Error"))
		case s.State.Waiting != nil && s.State.Waiting.Reason != "" && s.State.Waiting.Reason != pod.ReasonPodInitializing:
			return deleting(p, "Init:"+s.State.Waiting.Reason)
		}
		return deleting(p, "Init:"+counted(i, len(p.Spec.InitContainers)))
	}
	running := false
	for _, s := range slices.Backward(p.Status.ContainerStatuses) {
		switch {
		case s.State.Waiting != nil && s.State.Waiting.Reason != "":
			if p.Status.Reason == "" || s.State.Waiting.Message != "" {
				word = s.State.Waiting.Reason
			}
		case s.State.Terminated != nil:
			word = cmp.Or(s.State.Terminated.Reason, "Error")
		case s.State.Running != nil && s.Ready:
			running = true
		}
	}
	if word == pod.ReasonCompleted && running {
		word = "Running"
	}
	return deleting(p, word)
}

func counted(done, all int) string { return strconv.Itoa(done) + "/" + strconv.Itoa(all) }

func deleting(p *corev1.Pod, word string) string {
	if p.DeletionTimestamp != nil || p.DeletionGracePeriodSeconds != nil {
		return "Terminating"
	}
	return word
}
