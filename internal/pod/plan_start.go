package pod

import (
	corev1 "k8s.io/api/core/v1"
)

// initialise brings the init containers on in order and tells whether they are
// through. The furthest one that has a run in the sandbox says how far they are: those
// before it are through, of which sidecars are kept running and the records of the
// others may be gone. Once a container of the pod proper was started there, all are.
func (p *planner) initialise(s *Sandbox) bool {
	all := p.d.Pod.Spec.InitContainers
	at := p.reached(s)
	for i := range all {
		if i < at && isSidecar(&all[i]) {
			p.keep(s, &all[i], isInit)
		}
	}
	for ; at < len(all); at++ {
		if !p.through(s, &all[at]) {
			p.keep(s, &all[at], isInit)
			return false
		}
		if isSidecar(&all[at]) {
			p.keep(s, &all[at], isInit)
		}
	}
	return true
}

// reached is the index of the furthest init container that was started in the
// sandbox; their number when all are through.
func (p *planner) reached(s *Sandbox) int {
	spec := &p.d.Pod.Spec
	if p.anyStarted(s) {
		return len(spec.InitContainers)
	}
	for i := len(spec.InitContainers) - 1; i > 0; i-- {
		if c := p.o.latest(spec.InitContainers[i].Name); c != nil && c.SandboxID == s.ID {
			return i
		}
	}
	return 0
}

// anyStarted tells whether a container of the pod proper was started in the sandbox.
func (p *planner) anyStarted(s *Sandbox) bool {
	for i := range p.d.Pod.Spec.Containers {
		if c := p.o.latest(p.d.Pod.Spec.Containers[i].Name); c != nil && c.SandboxID == s.ID {
			return true
		}
	}
	return false
}

// through tells whether the next init container may start: this one has succeeded
// in the sandbox, or is a sidecar that has started.
func (p *planner) through(s *Sandbox, c *corev1.Container) bool {
	last := p.o.latest(c.Name)
	switch {
	case last == nil || last.SandboxID != s.ID || p.o.Running[Op{Kind: StartContainer, Object: c.Name}]:
		return false
	case isSidecar(c):
		return last.State == ContainerRunning && p.o.HealthOf(c, last).Started
	}
	return last.State == ContainerExited && last.ExitCode == 0
}

// role is what a container is to its pod.
type role int

const (
	isApp role = iota
	isInit
	isEphemeral
)

// start brings up the containers of the pod proper. They start side by side, but
// one waits for the postStart hook of those before it, on which pods rely since
// kubelet starts one after another.
func (p *planner) start(s *Sandbox) {
	held := false
	for i := range p.d.Pod.Spec.Containers {
		c := &p.d.Pod.Spec.Containers[i]
		last := p.o.latest(c.Name)
		if !held || last != nil && last.State == ContainerRunning {
			p.keep(s, c, isApp)
		}
		held = held || hasPostStart(c) && (p.o.Running[Op{Kind: StartContainer, Object: c.Name}] ||
			p.planned(Op{Kind: StartContainer, Object: c.Name}) || last != nil && last.hooking())
	}
}

// ephemeral starts each ephemeral container once, also before the pod is
// initialised.
func (p *planner) ephemeral(s *Sandbox) {
	for i := range p.d.Pod.Spec.EphemeralContainers {
		e := &p.d.Pod.Spec.EphemeralContainers[i]
		p.keep(s, (*corev1.Container)(&e.EphemeralContainerCommon), isEphemeral)
	}
}

// keep starts the container if it does not run and should.
func (p *planner) keep(s *Sandbox, c *corev1.Container, as role) {
	last := p.o.latest(c.Name)
	start := Action{Kind: StartContainer, Sandbox: s.ID, Name: c.Name}
	switch {
	case p.o.Running[start.Op()]:
	case last == nil:
		start.Backoff = p.o.Backoff[c.Name]
		p.do(start)
	case last.State == ContainerRunning:
		p.check(s, c, last, as)
	case last.State == ContainerCreated:
		// Its daemon died, or the call failed, before it was started.
		p.do(Action{Kind: RemoveContainer, Container: last.ID, Name: last.Name})
	case last.Stop.Again || p.o.Again[last.ID]:
		start.Attempt = last.Attempt + 1
		p.do(start)
	case as == isApp && last.Hash != ContainerHash(c):
		start.Attempt = last.Attempt + 1
		p.do(start)
	case as == isInit && last.SandboxID != s.ID:
		start.Attempt = last.Attempt + 1 // a new sandbox runs them all again
		p.do(start)
	case runsAgain(&p.d.Pod.Spec, c, last.ExitCode, as):
		at, next := p.o.restart(last, p.now)
		start.Attempt, start.Backoff = last.Attempt+1, next
		if at.After(p.now) {
			p.wake(at)
			return
		}
		p.do(start)
	}
}

// runsAgain tells whether the container runs again after it ended with the code.
func runsAgain(spec *corev1.PodSpec, c *corev1.Container, code int32, as role) bool {
	switch {
	case as == isEphemeral:
		return false
	case as == isInit && !isSidecar(c):
		return retries(spec, c, code)
	}
	return shouldRestart(spec, c, code)
}

// check looks after a run: its postStart hook, and whether it is what it should be. It
// is stopped when it is of another spec, when somebody asked for its restart, when its
// hook failed or when a probe wants its end. Whether it runs again is its restart
// policy's affair.
func (p *planner) check(s *Sandbox, c *corev1.Container, run *Container, as role) {
	if as == isEphemeral || as == isInit && !isSidecar(c) || run.SandboxID != s.ID {
		return
	}
	health := p.o.HealthOf(c, run)
	hook := Action{Kind: PostStart, Container: run.ID, Name: run.Name}
	// Where it is only not known that the hook has ended, it is run again.
	failed := p.o.Failed[hook.Op()].Reason == ReasonFailedPostStartHook
	switch {
	case run.Hash != ContainerHash(c):
		p.stop(*run, "its spec changed")
	case p.o.Again[run.ID], run.Stop.Again:
		p.stop(*run, "a restart was asked for")
	case failed:
		p.stop(*run, ReasonFailedPostStartHook)
	case run.hooking():
		p.do(hook)
	case health.Unhealthy != "":
		p.stopWithin(*run, p.probeGrace(health), health.Unhealthy)
	}
}

// hooking tells that the run's postStart hook has not ended yet.
func (c *Container) hooking() bool { return c.State == ContainerRunning && c.PostStart }

func hasPostStart(c *corev1.Container) bool {
	return c.Lifecycle != nil && c.Lifecycle.PostStart != nil
}
