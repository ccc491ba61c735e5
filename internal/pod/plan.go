package pod

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Steps is what to do next for a pod.
type Steps struct {
	// Actions may all run now, side by side.
	Actions []Action
	// WakeAt is when to plan again although nothing changed; zero: never.
	WakeAt time.Time
	// Done: nothing is wanted of the pod and nothing is left of it.
	Done bool
}

// Plan compares the wish with what is there and returns the steps that may run
// now. It never returns a step whose operation is in flight, nor one that
// failed and whose time has not come. The steps of one pod in order: prepare
// and sandbox, init containers one after another, then all containers.
func Plan(d Desired, o Observed, now time.Time) Steps {
	p := planner{d: d, o: o, now: now}
	switch {
	case d.Wish == WishAbsent || d.Pod == nil:
		p.absent()
	case d.Rejected != nil, terminal(d, o):
		p.finish()
	default:
		p.run()
	}
	return p.steps
}

type planner struct {
	d     Desired
	o     Observed
	now   time.Time
	steps Steps
}

// do adds the action unless it runs already or has to wait after a failure.
func (p *planner) do(a Action) {
	op := a.Op()
	if p.o.Running[op] || p.planned(op) {
		return
	}
	if f, failed := p.o.Failed[op]; failed {
		if f.Absent {
			return // whoever brings the object wakes us
		}
		if at := f.RetryAt(); at.After(p.now) {
			p.wake(at)
			return
		}
	}
	p.steps.Actions = append(p.steps.Actions, a)
}

// planned tells whether the step is in this plan already: two reasons may ask
// for the same one.
func (p *planner) planned(op Op) bool {
	for _, a := range p.steps.Actions {
		if a.Op() == op {
			return true
		}
	}
	return false
}

func (p *planner) wake(at time.Time) {
	if p.steps.WakeAt.IsZero() || at.Before(p.steps.WakeAt) {
		p.steps.WakeAt = at
	}
}

// absent ends the pod: containers, then network and namespaces together with
// the dead containers' records, then cgroup and directories. The sandbox's
// record goes last, since it is what a restarted daemon would go on from.
func (p *planner) absent() {
	if !p.stopAll("Killing") || p.o.inFlight(StartContainer) || p.o.inFlight(RunSandbox) || p.o.inFlight(Prepare) {
		return
	}
	for _, c := range p.o.Containers {
		p.do(Action{Kind: RemoveContainer, Container: c.ID, Name: c.Name})
	}
	stopped := p.stopSandboxes()
	if len(p.o.Containers) > 0 || !stopped {
		return
	}
	if p.o.Dirty {
		p.do(Action{Kind: Cleanup})
		return
	}
	for _, s := range p.o.Sandboxes {
		p.do(Action{Kind: RemoveSandbox, Sandbox: s.ID})
	}
	p.steps.Done = p.o.RuntimeState.Empty() && len(p.o.Running) == 0
}

// finish releases what a pod that will not run again still holds; its dead
// containers and their logs stay, since they tell how it ended.
func (p *planner) finish() {
	defer p.prune()
	if !p.stopAll("Finished") || p.o.inFlight(StartContainer) || p.o.inFlight(RunSandbox) {
		return
	}
	if p.stopSandboxes() && p.o.Dirty && !p.o.Released && !p.o.inFlight(Prepare) {
		p.do(Action{Kind: ReleaseCgroup})
	}
}

// run brings the pod up and keeps it up.
func (p *planner) run() {
	defer p.prune()
	s := p.o.newestSandbox()
	if s == nil || s.State != SandboxReady {
		p.newSandbox(s)
		return
	}
	for _, c := range p.o.Containers {
		if c.State == ContainerRunning && c.SandboxID != s.ID {
			p.stop(c, "of an earlier sandbox")
		}
	}
	if !p.o.Prepared {
		p.do(Action{Kind: Prepare})
		return
	}
	if p.initialise(s) {
		for i := range p.d.Pod.Spec.Containers {
			p.keep(s, &p.d.Pod.Spec.Containers[i], p.d.Pod.Spec.RestartPolicy, false)
		}
	}
}

// newSandbox ends what is left of the last sandbox and makes the next one.
// kubelet: no sandbox, or one that is not ready, means all containers are
// killed and the next attempt is made; init containers run again in it.
func (p *planner) newSandbox(last *Sandbox) {
	attempt := uint32(0)
	if last != nil {
		attempt = last.Attempt + 1
	}
	if !p.o.Prepared {
		p.do(Action{Kind: Prepare})
	}
	if !p.stopAll("SandboxChanged") || p.o.inFlight(RunSandbox) || p.o.inFlight(StartContainer) || !p.stopSandboxes() {
		return
	}
	if p.o.NetworkNotReady != "" && !p.d.Pod.Spec.HostNetwork {
		return // whoever made it ready wakes us
	}
	p.do(Action{Kind: RunSandbox, Attempt: attempt})
}

// initialise runs the init containers in order in the sandbox and tells whether
// they are through. Once a container of the pod proper was started there, they
// were: their own records may be gone by then.
func (p *planner) initialise(s *Sandbox) bool {
	spec := &p.d.Pod.Spec
	for i := range spec.Containers {
		if c := p.o.latest(spec.Containers[i].Name); c != nil && c.SandboxID == s.ID {
			return true
		}
	}
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		last := p.o.latest(c.Name)
		if last != nil && last.SandboxID == s.ID && last.State == ContainerExited && last.ExitCode == 0 {
			continue
		}
		// An init container is retried unless the pod as a whole may not be.
		policy := corev1.RestartPolicyOnFailure
		if spec.RestartPolicy == corev1.RestartPolicyNever {
			policy = corev1.RestartPolicyNever
		}
		p.keep(s, c, policy, true)
		return false
	}
	return true
}

// keep starts the container if it does not run and should.
func (p *planner) keep(s *Sandbox, c *corev1.Container, policy corev1.RestartPolicy, init bool) {
	last := p.o.latest(c.Name)
	start := Action{Kind: StartContainer, Sandbox: s.ID, Name: c.Name}
	switch {
	case p.o.Running[start.Op()]:
	case last == nil:
		p.do(start)
	case last.State == ContainerRunning:
		p.check(s, c, last, init)
	case last.State == ContainerCreated:
		// Its daemon died, or the call failed, before it was started.
		p.do(Action{Kind: RemoveContainer, Container: last.ID, Name: last.Name})
	case last.Hash != ContainerHash(c):
		start.Attempt = last.Attempt + 1
		p.do(start)
	case init && last.SandboxID != s.ID:
		start.Attempt = last.Attempt + 1 // a new sandbox runs them all again
		p.do(start)
	case restarts(policy, last.ExitCode):
		at, next := p.o.restart(last, p.now)
		start.Attempt, start.Backoff = last.Attempt+1, next
		if at.After(p.now) {
			p.wake(at)
			return
		}
		p.do(start)
	}
}

// check stops a run that is not what it should be: of another spec, or one that a
// probe wants ended. Whether it runs again is its restart policy's affair.
func (p *planner) check(s *Sandbox, c *corev1.Container, run *Container, init bool) {
	if init || run.SandboxID != s.ID {
		return
	}
	health := p.o.HealthOf(c, run)
	switch {
	case run.Hash != ContainerHash(c):
		p.stop(*run, "its spec changed")
	case health.Unhealthy != "":
		p.stopWithin(*run, p.probeGrace(health), health.Unhealthy)
	}
}

// restarts tells whether a container that exited with the code starts again.
func restarts(policy corev1.RestartPolicy, code int32) bool {
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return code != 0
	default:
		return true
	}
}

// stopAll stops every running container and tells whether none runs any more.
func (p *planner) stopAll(why string) bool {
	for _, c := range p.o.Containers {
		if c.State == ContainerRunning {
			p.stop(c, why)
		}
	}
	return !p.o.anyRunning()
}

func (p *planner) stop(c Container, why string) { p.stopWithin(c, p.grace(), why) }

func (p *planner) stopWithin(c Container, grace time.Duration, why string) {
	p.do(Action{Kind: StopContainer, Container: c.ID, Name: c.Name, Grace: grace, Reason: why})
}

// probeGrace is the time that a container gets to obey TERM when a probe wants its
// end: the pod's own when that is on its way out, else the probe's where it has one
// (kubelet's setTerminationGracePeriod).
func (p *planner) probeGrace(h Health) time.Duration {
	if p.d.Grace != nil || h.Grace == nil {
		return p.grace()
	}
	return max(time.Duration(*h.Grace)*time.Second, minGrace)
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

// minGrace is the least time between TERM and KILL, as kubelet has it.
const minGrace = 2 * time.Second

// defaultGrace is the API's default of terminationGracePeriodSeconds.
const defaultGrace = 30 * time.Second

// grace is the time that a container of the pod gets to obey TERM.
func (p *planner) grace() time.Duration {
	g := defaultGrace
	switch s := p.o.newestSandbox(); {
	case p.d.Grace != nil:
		g = time.Duration(*p.d.Grace) * time.Second
	case p.d.Pod != nil && p.d.Pod.Spec.TerminationGracePeriodSeconds != nil:
		g = time.Duration(*p.d.Pod.Spec.TerminationGracePeriodSeconds) * time.Second
	case s != nil:
		g = time.Duration(s.Grace) * time.Second
	}
	return max(g, minGrace)
}

// prune removes what is older than the last dead run of each container, and the
// records of stopped sandboxes that no container refers to.
func (p *planner) prune() {
	for i := range p.o.Containers {
		c := &p.o.Containers[i]
		if c.State != ContainerExited {
			continue
		}
		if c != p.o.latest(c.Name) && c != p.o.previous(c.Name) || p.superseded(c) {
			p.do(Action{Kind: RemoveContainer, Container: c.ID, Name: c.Name})
		}
	}
	newest := p.o.newestSandbox()
	for _, s := range p.o.Sandboxes {
		if s.ID == newest.ID || p.o.anyOf(s.ID) {
			continue
		}
		if !s.Stopped {
			p.do(Action{Kind: StopSandbox, Sandbox: s.ID})
			continue
		}
		p.do(Action{Kind: RemoveSandbox, Sandbox: s.ID})
	}
}

// superseded: of two dead runs only the newest is kept.
func (p *planner) superseded(c *Container) bool {
	last := p.o.latest(c.Name)
	return c != last && last.State == ContainerExited
}
