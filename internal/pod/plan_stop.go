package pod

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// stopAll stops every running container, sidecars after the containers that they
// serve, and tells whether none runs any more.
func (p *planner) stopAll(why string) bool {
	for i := range p.o.Containers {
		if c := &p.o.Containers[i]; c.State == ContainerRunning {
			p.end(*c, p.grace(), why, p.turn(c))
		}
	}
	return !p.o.anyRunning()
}

// turn tells whether the container may get its signal when the pod as a whole ends:
// a sidecar waits for the containers of the pod proper and for the sidecars that were
// started after it (kubelet's terminationOrdering). One whose start is under way may
// run by the time that the signal comes, so it is waited for like one that runs.
func (p *planner) turn(c *Container) bool {
	if c.Sidecar == 0 {
		return true
	}
	for i := range p.o.Containers {
		o := &p.o.Containers[i]
		if o.State == ContainerRunning && (!o.Init && !p.isEphemeral(o) || o.Sidecar > c.Sidecar) {
			return false
		}
	}
	for op := range p.o.Running {
		if op.Kind == StartContainer && p.isServed(op.Object, c) {
			return false
		}
	}
	return true
}

// isServed tells whether the container of that name ends before the sidecar.
func (p *planner) isServed(name string, sidecar *Container) bool {
	if p.d.Pod == nil {
		return false // nothing of it is started any more
	}
	for i := range p.d.Pod.Spec.InitContainers {
		if c := &p.d.Pod.Spec.InitContainers[i]; c.Name == name {
			return isSidecar(c) && i+1 > sidecar.Sidecar
		}
	}
	for i := range p.d.Pod.Spec.Containers {
		if p.d.Pod.Spec.Containers[i].Name == name {
			return true
		}
	}
	return false
}

// isEphemeral: no sidecar waits for an ephemeral container.
func (p *planner) isEphemeral(c *Container) bool {
	if p.d.Pod == nil {
		return false
	}
	for i := range p.d.Pod.Spec.EphemeralContainers {
		if p.d.Pod.Spec.EphemeralContainers[i].Name == c.Name {
			return true
		}
	}
	return false
}

func (p *planner) stop(c Container, why string) { p.stopWithin(c, p.grace(), why) }

func (p *planner) stopWithin(c Container, grace time.Duration, why string) {
	p.end(c, grace, why, true)
}

// end stops one container. The grace counts from the first time that its end was
// wanted, and may only become shorter: its preStop hook and the wait for its turn are
// taken from it, but TERM and KILL are always minGrace apart (kubelet's killContainer).
func (p *planner) end(c Container, grace time.Duration, why string, turn bool) {
	stop := Action{Kind: StopContainer, Container: c.ID, Name: c.Name, Reason: why, Again: p.o.Again[c.ID]}
	by := p.now.Add(grace)
	if p.o.Running[stop.Op()] {
		if !c.Stop.By.IsZero() && by.Before(c.Stop.By.Add(-shortenBy)) {
			p.do(Action{Kind: ShortenStop, Container: c.ID, Name: c.Name, Grace: max(grace, minGrace), Reason: why})
		}
		return
	}
	if !c.Stop.By.IsZero() && c.Stop.By.Before(by) {
		by = c.Stop.By
	}
	left := by.Sub(p.now)
	hook := p.hasPreStop(&c) && !c.Stop.Hooked
	if left > 0 && (hook || !turn) {
		if hook || c.Stop.By.IsZero() {
			stop.Kind, stop.Grace = PreStop, left
			p.do(stop)
		}
		p.wake(by)
		return
	}
	stop.Grace = max(left, minGrace)
	p.do(stop)
}

// hasPreStop tells whether the container has a preStop hook; of one whose pod is not
// known any more its record tells.
func (p *planner) hasPreStop(c *Container) bool {
	if p.d.Pod == nil {
		return c.PreStop != ""
	}
	spec := ContainerOf(p.d.Pod, c.Name)
	return spec != nil && spec.Lifecycle != nil && spec.Lifecycle.PreStop != nil
}

// stopSandboxes releases network and namespaces of every sandbox and tells
// whether all are released.
func (p *planner) stopSandboxes() bool {
	all := true
	for _, s := range p.o.Sandboxes {
		if !s.Stopped {
			all = false
			p.do(Action{Kind: StopSandbox, Sandbox: s.ID})
		}
	}
	return all
}

const (
	// minGrace is the least time between TERM and KILL, as kubelet has it.
	minGrace = 2 * time.Second
	// defaultGrace is the API's default of terminationGracePeriodSeconds.
	defaultGrace = 30 * time.Second
	// leastPodGrace is what a pod that ends has at the least, so that its hooks can
	// begin (kubelet's calculateEffectiveGracePeriod).
	leastPodGrace = time.Second
	// shortenBy is the least by which a stop under way is worth to be shortened.
	shortenBy = 500 * time.Millisecond
)

// grace is the time that a container of the pod gets to obey TERM, its hook
// included.
func (p *planner) grace() time.Duration {
	g := defaultGrace
	switch s := p.o.newestSandbox(); {
	case p.d.Grace != nil:
		g = max(Seconds(*p.d.Grace), leastPodGrace)
	case p.d.Pod != nil && p.d.Pod.Spec.TerminationGracePeriodSeconds != nil:
		g = Seconds(*p.d.Pod.Spec.TerminationGracePeriodSeconds)
	case s != nil:
		g = Seconds(s.Grace)
	}
	return p.d.within(g)
}

// probeGrace is the time that a container gets to obey TERM when a probe wants its
// end: the pod's own when that is on its way out, else the probe's where it has one
// (kubelet's setTerminationGracePeriod).
func (p *planner) probeGrace(h Health) time.Duration {
	if p.d.Grace != nil || h.Grace == nil {
		return p.grace()
	}
	return p.d.within(Seconds(*h.Grace))
}

// ContainerOf finds the container of that name in a pod: a container of the pod
// proper, an init container or an ephemeral one; nil: there is none.
func ContainerOf(p *corev1.Pod, name string) *corev1.Container {
	spec := &p.Spec
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	for i := range spec.EphemeralContainers {
		if spec.EphemeralContainers[i].Name == name {
			return (*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon)
		}
	}
	return nil
}
