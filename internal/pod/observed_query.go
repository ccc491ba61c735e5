package pod

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// newestSandbox returns the sandbox of the highest attempt, or nil.
func (s RuntimeState) newestSandbox() *Sandbox {
	var newest *Sandbox
	for i := range s.Sandboxes {
		if newest == nil || s.Sandboxes[i].Attempt > newest.Attempt {
			newest = &s.Sandboxes[i]
		}
	}
	return newest
}

// latest returns the newest run of the named container, or nil.
func (s RuntimeState) latest(name string) *Container {
	var last *Container
	for i := range s.Containers {
		c := &s.Containers[i]
		if c.Name == name && (last == nil || newer(c, last)) {
			last = c
		}
	}
	return last
}

// Latest returns the newest run of the named container, or nil.
func (s RuntimeState) Latest(name string) *Container { return s.latest(name) }

// Probeable is the same without the runs whose postStart hook has not ended: they are
// not probed before (kubelet counts them as not running until then).
func (s RuntimeState) Probeable() RuntimeState {
	for i := range s.Containers {
		if s.Containers[i].hooking() {
			s.Containers = slices.DeleteFunc(slices.Clone(s.Containers), func(c Container) bool { return c.hooking() })
			return s
		}
	}
	return s
}

// previous returns the newest dead run of the container besides its latest.
func (s RuntimeState) previous(name string) *Container {
	last := s.latest(name)
	var prev *Container
	for i := range s.Containers {
		c := &s.Containers[i]
		if c.Name == name && c != last && c.State == ContainerExited && (prev == nil || newer(c, prev)) {
			prev = c
		}
	}
	return prev
}

// newer orders two runs of one container.
func newer(a, b *Container) bool {
	if a.Attempt != b.Attempt {
		return a.Attempt > b.Attempt
	}
	return a.Created.After(b.Created)
}

// anyRunning tells whether a process of the pod may be alive.
func (s RuntimeState) anyRunning() bool {
	for i := range s.Containers {
		if s.Containers[i].State == ContainerRunning {
			return true
		}
	}
	return false
}

// anyOf tells whether a container of the sandbox is still recorded.
func (s RuntimeState) anyOf(sandboxID string) bool {
	for i := range s.Containers {
		if s.Containers[i].SandboxID == sandboxID {
			return true
		}
	}
	return false
}

// inFlight tells whether an operation of the kind runs, on whatever object.
func (o Observed) inFlight(kind ActionKind) bool {
	for op := range o.Running {
		if op.Kind == kind {
			return true
		}
	}
	return false
}

// HealthOf is the probes' verdict on a run of c. Where there is none yet, a
// container without probes is healthy, and one with probes has to prove it
// (KEP-950: startup holds up the others; kubelet's initial results: startup
// unknown, readiness false, liveness true).
func (o Observed) HealthOf(c *corev1.Container, run *Container) Health {
	if run.hooking() {
		return Health{} // it has not started before its postStart hook has ended
	}
	if h, judged := o.Health[run.ID]; judged {
		return h
	}
	return Health{
		Started: c.StartupProbe == nil,
		Ready:   c.StartupProbe == nil && c.ReadinessProbe == nil,
	}
}
