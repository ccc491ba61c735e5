package pod

import (
	"time"
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
	case d.Rejected != nil, d.Ended != nil, terminal(d, o, now):
		p.finish()
	case d.unbuilt(&o) != nil: // until the pod or the daemon is another
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
	if !p.stopAll("Killing") || p.o.inFlight(StartContainer) || p.o.inFlight(RunSandbox) || p.o.inFlight(Prepare) || p.o.inFlight(RefreshVolumes) {
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
	if p.stopSandboxes() && p.o.Dirty && !p.o.Released && !p.o.inFlight(Prepare) && !p.o.inFlight(RefreshVolumes) {
		p.do(Action{Kind: ReleaseCgroup})
	}
}

// run brings the pod up and keeps it up.
func (p *planner) run() {
	defer p.prune()
	s := p.o.newestSandbox()
	if s == nil || s.State != SandboxReady {
		if at, limited := deadline(p.d, p.o); limited {
			p.wake(at)
		}
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
	if p.o.Stale {
		p.do(Action{Kind: RefreshVolumes}) // containers neither wait for it nor fail with it
	}
	if at, limited := deadline(p.d, p.o); limited {
		p.wake(at)
	}
	if p.reset(s) {
		return
	}
	p.ephemeral(s)
	if p.initialise(s) {
		p.start(s)
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
