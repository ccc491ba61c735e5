package pod

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// resetters are the runs in the sandbox that ended with an exit code for which a rule
// of theirs wants all containers of the pod to start anew (KEP-5532).
func (o *Observed) resetters(spec *corev1.PodSpec, s *Sandbox) []*Container {
	var all []*Container
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			last := o.latest(list[i].Name)
			if last == nil || s == nil || last.State != ContainerExited || last.SandboxID != s.ID {
				continue
			}
			if action, _ := restartRule(&list[i], last.ExitCode); action == corev1.ContainerRestartRuleActionRestartAllContainers {
				all = append(all, last)
			}
		}
	}
	return all
}

// reset makes room for all containers to start anew in the sandbox, init containers
// too, when one of them asked for that by its exit code. All are stopped, then their
// records are removed, those of the ones that asked for it last: they are what a
// restarted daemon goes on from. They also hold the back-off, which is waited for and
// handed on, so that a pod cannot spin.
func (p *planner) reset(s *Sandbox) bool {
	askers := p.o.resetters(&p.d.Pod.Spec, s)
	if len(askers) == 0 {
		return false
	}
	running, rest := false, false
	for i := range p.o.Containers {
		c := &p.o.Containers[i]
		switch {
		case p.isEphemeral(c):
		case c.State == ContainerRunning:
			running = true
			p.end(*c, p.grace(), ReasonRestartingAllContainers, p.turn(c))
		case !slices.Contains(askers, c):
			rest = true
		}
	}
	if running || p.o.inFlight(StartContainer) {
		return true
	}
	var start time.Time
	for _, c := range askers {
		if at, _ := p.o.restart(c, p.now); at.After(start) {
			start = at
		}
	}
	for i := range p.o.Containers {
		c := &p.o.Containers[i]
		asker := slices.Contains(askers, c)
		switch {
		case p.isEphemeral(c), asker && rest:
		case asker && start.After(p.now):
			p.wake(start)
		default:
			_, next := p.o.restart(c, p.now)
			p.do(Action{Kind: RemoveContainer, Container: c.ID, Name: c.Name, Backoff: next, Reason: ReasonRestartingAllContainers})
		}
	}
	return true
}
