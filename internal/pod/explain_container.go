package pod

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// containers tells the gates of each container; open tells that the pod's own gates
// before them are passed.
func (e *explainer) containers(open bool) {
	spec := &e.Desired.Pod.Spec
	open = open && !e.ended()
	at, after := len(spec.InitContainers), ""
	if s := e.Observed.newestSandbox(); s != nil && open {
		for at = e.plan.reached(s); at < len(spec.InitContainers) && e.plan.through(s, &spec.InitContainers[at]); at++ {
		}
	}
	for i := range spec.InitContainers {
		c := containerGates{explainer: e, spec: &spec.InitContainers[i], as: isInit, open: open && i <= at, through: open && i < at, after: after}
		c.tell()
		if i == at {
			after = fmt.Sprintf("init container %q has to %s first", c.spec.Name, initHasTo(c.spec))
		}
	}
	held := ""
	for i := range spec.Containers {
		c := containerGates{explainer: e, spec: &spec.Containers[i], as: isApp, open: open && at == len(spec.InitContainers) && held == "", after: after + held}
		c.tell()
		if last := e.Observed.latest(c.spec.Name); held == "" && hasPostStart(c.spec) && last != nil && last.hooking() {
			held = fmt.Sprintf("the postStart hook of container %q has to end first", c.spec.Name)
		}
	}
	for i := range spec.EphemeralContainers {
		c := containerGates{explainer: e, spec: (*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon), as: isEphemeral, open: open}
		c.tell()
	}
}

func initHasTo(c *corev1.Container) string {
	if isSidecar(c) {
		return "start"
	}
	return "succeed"
}

// containerGates tells the gates of one container.
type containerGates struct {
	*explainer
	spec  *corev1.Container
	as    role
	open  bool   // nothing before it hinders its start
	after string // why not, where a container hinders it

	through bool // an init container with which the pod is through
}

// ofContainer are the gates of a container, in order.
var ofContainer = []GateName{GateImage, GateCreate, GateStart, GateProbes}

func (c *containerGates) tell() {
	last := c.Observed.latest(c.spec.Name)
	switch {
	case last != nil && last.State == ContainerRunning:
		c.until(GateStart, c.running(last))
	case last != nil && last.State == ContainerExited && !c.again(last):
		c.until(GateStart, c.over(last))
	case last == nil && c.through && !isSidecar(c.spec):
		c.until(GateStart, Gate{State: GatePassed, Detail: "it has succeeded, and its record is gone"})
	case !c.open:
		c.until(GateImage, c.before(last, Gate{State: GateNotReached, Detail: c.after}))
	case last != nil && last.State == ContainerExited:
		c.next(last)
	case last != nil:
		c.created(last)
	default:
		c.first()
	}
}

// until adds the gates: those before the named one are passed, and those after it are
// reached only if it is.
func (c *containerGates) until(name GateName, g Gate) {
	at := slices.Index(ofContainer, name)
	for i, one := range ofContainer {
		out := Gate{State: GatePassed}
		switch {
		case i == at:
			out = g
		case i > at && (one != GateProbes || g.State != GatePassed):
			out = Gate{State: GateNotReached}
		case one == GateProbes:
			out = c.probes()
		}
		out.Container = c.spec.Name
		c.add(one, out)
	}
}

// before adds how the run before ended.
func (c *containerGates) before(last *Container, g Gate) Gate {
	if last != nil && last.State == ContainerExited && g.LastError == "" {
		g.LastError = ending(last)
	}
	return g
}

// ending says how a run ended, "" for one that ended well.
func ending(run *Container) string {
	t := terminated(run)
	if t.ExitCode == 0 && t.Reason == ReasonCompleted {
		return ""
	}
	text := fmt.Sprintf("run %d ended with exit code %d (%s)", run.Attempt, t.ExitCode, t.Reason)
	if m := strings.TrimSpace(t.Message); m != "" {
		text += ": " + m
	}
	return text
}

// again tells whether a run that has ended is to be followed by another.
func (c *containerGates) again(last *Container) bool {
	s := c.Observed.newestSandbox()
	switch {
	case c.Desired.Rejected != nil || c.ended():
		return false
	case last.Stop.Again || c.Observed.Again[last.ID]:
		return true
	case c.as == isApp && last.Hash != ContainerHash(c.spec), c.as == isInit && s != nil && last.SandboxID != s.ID && !c.plan.anyStarted(s):
		return true
	}
	return runsAgain(&c.Desired.Pod.Spec, c.spec, last.ExitCode, c.as)
}

// running tells the start of a container that runs.
func (c *containerGates) running(last *Container) Gate {
	o := &c.Observed
	g := Gate{State: GatePassed, Since: moment(last.Started), Detail: fmt.Sprintf("run %d", last.Attempt)}
	if prev := o.previous(c.spec.Name); prev != nil {
		g.LastError = ending(prev)
	}
	hook, stop := Op{Kind: PostStart, Object: last.ID}, Op{Kind: StopContainer, Object: last.ID}
	if f, failed := o.Failed[stop]; failed {
		g = failure(f)
		g.Detail = "it cannot be stopped"
		return g
	}
	switch {
	case o.Running[stop] || !last.Stop.By.IsZero():
		g.State, g.Detail, g.Next = GateWaiting, "it is being stopped, and gets SIGKILL when its grace is over", moment(last.Stop.By)
	case last.hooking() && o.Failed[hook].Count > 0:
		g = failure(o.Failed[hook])
		g.Do = "look at what the hook does; the container is stopped and started again"
	case last.hooking():
		g.State, g.Detail = GateWaiting, "its postStart hook runs"
	case c.as == isInit && !isSidecar(c.spec):
		g.State, g.Detail = GateWaiting, g.Detail+" of this init container goes on, and has to succeed first"
	}
	return g
}

// over tells of a container that has ended and is not started again.
func (c *containerGates) over(last *Container) Gate {
	g := Gate{State: GatePassed, Since: moment(last.Finished), Reason: terminated(last).Reason, Detail: "it has ended well"}
	if g.LastError = ending(last); g.LastError != "" && last.ExitCode != 0 {
		g.State, g.Detail = GateFailed, fmt.Sprintf("the restart policy (%s) does not start it again", c.policy())
		g.Do = c.logs("")
		if c.as == isEphemeral || c.status.Reason == ReasonDeadlineExceeded || c.Desired.Rejected != nil {
			g.State, g.Detail, g.Do = GatePassed, "it has ended", "" // it is not what the pod failed by
		}
	} else if last.ExitCode == 0 {
		g.Detail = "it has ended with 0"
	}
	return g
}

func (c *containerGates) policy() string {
	if c.spec.RestartPolicy != nil {
		return string(*c.spec.RestartPolicy)
	}
	return string(c.Desired.Pod.Spec.RestartPolicy)
}

// logs names the command that shows what the container said.
func (c *containerGates) logs(flags string) string {
	p := c.Desired.Pod
	return fmt.Sprintf(`"nodeagent logs %s%s/%s -c %s" shows what it said`, flags, p.Namespace, p.Name, c.spec.Name)
}

// next tells of a container that has ended and is to run again.
func (c *containerGates) next(last *Container) {
	if c.attempt(last) {
		return
	}
	at, _ := c.Observed.restart(last, c.now)
	g := Gate{State: GateWaiting, Detail: "it starts again now", Since: moment(last.Finished), LastError: ending(last)}
	if c.Dead {
		g.Detail = c.idle().Detail
	}
	if f, failed := c.Observed.Failed[Op{Kind: PostStart, Object: last.ID}]; failed {
		g.LastError = f.Message
	}
	waits := at.After(c.now) || c.Dead && last.Backoff > 0
	if waits && !last.Stop.Again && !c.Observed.Again[last.ID] {
		g.State, g.Reason, g.Next = GateBlocked, ReasonCrashLoopBackOff, moment(at)
		g.Detail = fmt.Sprintf("back-off of %s after run %d", last.Backoff, last.Attempt)
		g.Do = c.logs("--previous ") + ", " + fmt.Sprintf(`"nodeagent restart %s/%s -c %s" does not wait`, c.Desired.Pod.Namespace, c.Desired.Pod.Name, c.spec.Name)
		if last.ExitCode == 0 {
			g.LastError = fmt.Sprintf("run %d ended with exit code 0, and the restart policy (%s) starts it again", last.Attempt, c.policy())
		}
	}
	c.until(GateStart, g)
}

// created tells of a container that was made and never started.
func (c *containerGates) created(last *Container) {
	if c.attempt(nil) {
		return
	}
	g := c.idle()
	g.Detail = "it was made by a start that did not come to its end, and is made anew: " + g.Detail
	g.Since = moment(last.Created)
	c.until(GateStart, g)
}

// first tells of a container that has no run yet.
func (c *containerGates) first() {
	if c.attempt(nil) {
		return
	}
	if c.Dead {
		if there, known := c.Images[c.spec.Image]; known && !there {
			g := c.idle()
			g.Detail = fmt.Sprintf("the image is not on the node (pull policy %s): %s", c.spec.ImagePullPolicy, g.Detail)
			c.until(GateImage, g)
			return
		}
		if missing := c.lacks(envReferences(c.Desired.Pod.Namespace, c.spec)); missing != "" {
			c.until(GateCreate, Gate{State: GateBlocked, Reason: ReasonCreateContainerConfigError, LastError: missing, Do: adviceAbsent})
			return
		}
	}
	c.until(GateImage, c.idle())
}

// attempt tells of a start that is under way or has failed; false: there is none.
func (c *containerGates) attempt(last *Container) bool {
	op := Op{Kind: StartContainer, Object: c.spec.Name}
	if c.Observed.Running[op] {
		step, detail := c.Flights[op].Step, "it is being pulled, or looked for"
		switch step {
		case GateCreate:
			detail = "it is being made, or waits for its turn: a few are started at a time"
		case GateStart:
			detail = "it is being started"
		default:
			step = GateImage
		}
		g := c.before(last, c.under(op, detail))
		if step == GateStart {
			g = c.hanging(g, c.Flights[op].Since)
		}
		if f, failed := c.Observed.Failed[op]; failed && g.State == GateBlocked {
			g.Do = c.advice(f)
		}
		c.until(step, g)
		return true
	}
	f, failed := c.Observed.Failed[op]
	if failed {
		g := failure(f)
		g.Do = c.advice(f)
		c.until(f.gate(), g)
	}
	return failed
}

// gate is where a container's start failed.
func (f Failure) gate() GateName {
	switch {
	case f.image():
		return GateImage
	case f.Reason == ReasonCreateContainerConfigError, f.Reason == ReasonCreateContainerError:
		return GateCreate
	}
	return GateStart
}

// probes tells what the probes say of the run that there is.
func (c *containerGates) probes() Gate {
	last := c.Observed.latest(c.spec.Name)
	if c.spec.StartupProbe == nil && c.spec.ReadinessProbe == nil && c.spec.LivenessProbe == nil || c.as == isInit && !isSidecar(c.spec) || c.as == isEphemeral {
		return Gate{State: GatePassed, Detail: "it has none"}
	}
	if last == nil || last.State != ContainerRunning {
		return Gate{State: GateNotReached}
	}
	h := c.Observed.HealthOf(c.spec, last)
	switch {
	case h.Unhealthy != "":
		return Gate{State: GateBlocked, Reason: "Unhealthy", LastError: h.Unhealthy, Detail: "the container is stopped, and started again by its restart policy", Do: c.logs("")}
	case !h.Started:
		return c.unproved("Startup", last)
	case !h.Ready:
		return c.unproved("Readiness", last)
	}
	g := Gate{State: GatePassed}
	for i := range c.Answers {
		if a := &c.Answers[i]; a.Container == last.ID && a.Message != "" && a.Probe != "Startup" {
			g.LastError, g.Failures, g.Next = a.Message, a.InRow, a.Next // not often enough yet
			break
		}
	}
	return g
}

// unproved tells of a probe that has not succeeded (often enough).
func (c *containerGates) unproved(probe string, last *Container) Gate {
	g := Gate{State: GateWaiting, Reason: probe, Detail: "the " + strings.ToLower(probe) + " probe has not succeeded yet", Since: moment(last.Started)}
	if c.Dead {
		g.Detail = "the " + strings.ToLower(probe) + " probe had not succeeded when the daemon ended, as far as it left word; nobody asks now"
	}
	for i := range c.Answers {
		a := &c.Answers[i]
		if a.Container != last.ID || a.Probe != probe {
			continue
		}
		g.Next = a.Next
		if a.Message != "" {
			g.State, g.LastError, g.Failures = GateBlocked, a.Message, a.InRow
			g.Do = "look at what the probe asks for, and " + c.logs("")
		}
	}
	return g
}
