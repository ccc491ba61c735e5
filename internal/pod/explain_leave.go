package pod

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// unsure tells what the records say of a pod of which nothing else is known.
func (e *explainer) unsure() {
	e.add(GateSource, Gate{State: GateWaiting, Detail: "no manifest asks for it; whether the API server does, only the daemon finds out"})
	g, addrs := Gate{State: GateNotReached}, ""
	if s := e.Observed.newestSandbox(); s != nil && s.State == SandboxReady {
		g, addrs = Gate{State: GatePassed, Since: moment(s.Created)}, addresses(s)
	} else if s != nil {
		g.Reason = s.Reason
	}
	e.add(GateSandbox, g)
	g.Reason, g.Detail = "", addrs
	e.add(GateNetwork, g)
	for _, name := range e.names() {
		last := e.Observed.latest(name)
		g := Gate{Container: name, State: GateNotReached, LastError: ending(last), Since: moment(last.Finished)}
		switch {
		case last.State == ContainerRunning:
			g.State, g.Since, g.Detail = GatePassed, moment(last.Started), fmt.Sprintf("run %d", last.Attempt)
		case last.State == ContainerExited && last.ExitCode == 0:
			g.State, g.Detail = GatePassed, "it has ended with 0"
		}
		e.add(GateStart, g)
	}
}

// names are those of the containers that have records.
func (e *explainer) names() []string {
	names := map[string]bool{}
	for i := range e.Observed.Containers {
		names[e.Observed.Containers[i].Name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// leave tells the gates of a pod that is to go, in the order of planner.absent.
func (e *explainer) leave() {
	e.status = e.Told
	e.add(GateSource, e.unwanted())
	open := e.stops()
	for _, next := range []struct {
		name GateName
		tell func() Gate
	}{{GateNetwork, e.releases}, {GateRemove, e.removes}, {GateVolumes, e.cleans}, {GateGone, e.goes}} {
		g := next.tell()
		if !open && g.State == GateWaiting {
			g = Gate{State: GateNotReached}
		}
		open = e.add(next.name, g) == GatePassed && open
	}
}

func (e *explainer) unwanted() Gate {
	switch p := e.Desired.Pod; {
	case p != nil && p.DeletionTimestamp != nil:
		return Gate{State: GatePassed, Detail: "it is being deleted", Since: moment(p.DeletionTimestamp.Time)}
	case e.Dead:
		return Gate{State: GatePassed, Detail: "no manifest that can be read asks for it"}
	}
	return Gate{State: GatePassed, Detail: "nobody asks for it any more"}
}

// stops tells the end of each container, and whether all have ended.
func (e *explainer) stops() bool {
	open := true
	for _, name := range e.names() {
		g := e.stop(e.Observed.latest(name))
		g.Container = name
		open = e.add(GateStop, g) == GatePassed && open
	}
	for _, kind := range []ActionKind{StartContainer, RunSandbox, Prepare, RefreshVolumes} {
		if e.Observed.inFlight(kind) {
			e.add(GateStop, Gate{State: GateWaiting, Detail: fmt.Sprintf("a step that was begun before (%s) has to come to its end", kind)})
			return false
		}
	}
	return open
}

func (e *explainer) stop(c *Container) Gate {
	op := Op{Kind: StopContainer, Object: c.ID}
	f, failed := e.Observed.Failed[op]
	switch {
	case c.State != ContainerRunning:
		return Gate{State: GatePassed, Since: moment(c.Finished), LastError: ending(c)}
	case failed && !e.Observed.Running[op]:
		g := failure(f)
		g.Do = "a process that no signal ends hangs in the kernel, usually on a disk or a network file system: see what it waits for in /proc/PID/stack"
		return g
	case e.Dead:
		return Gate{State: GateWaiting, Detail: "it runs, and nobody stops it while the daemon does not answer"}
	}
	g := e.under(op, "it was told to end, and gets SIGKILL when its grace is over")
	over := c.Stop.By
	if g.Next = moment(over); over.IsZero() {
		g.Detail, over = "it is told to end", e.Flights[op].Since
	}
	if e.Observed.Running[Op{Kind: PreStop, Object: c.ID}] {
		g.Detail = "its preStop hook runs, within its grace"
	}
	return e.hanging(g, over)
}

// releases: network and namespaces of every sandbox are released.
func (e *explainer) releases() Gate {
	if f, failed := e.failed(StopSandbox); failed {
		g := failure(f)
		g.Do = adviceNetworkGoes
		return g
	}
	for _, s := range e.Observed.Sandboxes {
		// What was released is not on the record; one that lost its namespaces was.
		if !s.Stopped && !(e.Dead && s.State == SandboxNotReady) {
			return e.step(Op{Kind: StopSandbox, Object: s.ID}, "it is being released")
		}
	}
	return Gate{State: GatePassed}
}

// removes: no container has a record any more.
func (e *explainer) removes() Gate {
	if f, failed := e.failed(RemoveContainer); failed {
		return failure(f)
	}
	if len(e.Observed.Containers) > 0 {
		return e.step(Op{Kind: RemoveContainer, Object: e.Observed.Containers[0].ID}, "the containers' records are being removed")
	}
	return Gate{State: GatePassed}
}

// cleans: cgroup, volumes and directories are gone.
func (e *explainer) cleans() Gate {
	op := Op{Kind: Cleanup}
	if f, failed := e.Observed.Failed[op]; failed {
		g := failure(f)
		if e.Observed.Running[op] {
			g = e.under(op, "")
		}
		g.Do = adviceVolumesGo
		return g
	}
	if e.Dead && len(e.Mounts) > 0 {
		g := e.idle()
		g.Detail = "still mounted: " + strings.Join(e.Mounts, ", ")
		return g
	}
	if e.Observed.Dirty || e.Dead {
		return e.step(op, "cgroup, volumes and directories are being removed")
	}
	return Gate{State: GatePassed}
}

// goes: the sandbox's record is gone.
func (e *explainer) goes() Gate {
	if f, failed := e.failed(RemoveSandbox); failed {
		return failure(f)
	}
	if len(e.Observed.Sandboxes) > 0 {
		return e.step(Op{Kind: RemoveSandbox, Object: e.Observed.Sandboxes[0].ID}, "the sandbox's record is being removed")
	}
	return Gate{State: GatePassed}
}

func (e *explainer) step(op Op, detail string) Gate {
	if e.Observed.Running[op] {
		return e.hanging(e.under(op, detail), e.Flights[op].Since)
	}
	return e.idle()
}
