package pod

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// come tells the gates of a pod that is to run.
func (e *explainer) come() {
	e.status = e.Told
	if e.status == nil {
		e.status = new(Status(e.Desired, e.Observed, Node{}, corev1.PodStatus{}, e.now))
	}
	e.add(GateSource, e.source())
	if e.add(GateAdmission, e.admission()) != GatePassed {
		for _, name := range []GateName{GateSandbox, GateNetwork, GateVolumes} {
			e.add(name, Gate{State: GateNotReached})
		}
		e.containers(false)
		e.add(GateReady, Gate{State: GateNotReached})
		return
	}
	open := e.add(GateSandbox, e.sandbox()) == GatePassed
	open = e.add(GateNetwork, e.network()) == GatePassed && open
	open = e.add(GateVolumes, e.volumes()) == GatePassed && open
	e.containers(open)
	e.add(GateReady, e.ready())
}

// ended tells whether the pod has ended for good.
func (e *explainer) ended() bool {
	return e.status.Phase == corev1.PodSucceeded || e.status.Phase == corev1.PodFailed || terminal(e.Desired, e.Observed, e.now)
}

// source: somebody wants the pod, and nothing is wrong with how.
func (e *explainer) source() Gate {
	if len(e.Refused) > 0 {
		return e.refused()
	}
	p := e.Desired.Pod
	g := Gate{State: GatePassed, Detail: "a manifest of this node"}
	if !static(p) {
		g.Detail, g.Since = "the API server", moment(p.CreationTimestamp.Time)
	} else if at, err := time.Parse(time.RFC3339Nano, p.Annotations[annotationSeen]); err == nil && !e.Dead {
		g.Since = moment(at)
	}
	return g
}

// annotationSeen is when a static pod's manifest was first seen.
const annotationSeen = "kubernetes.io/config.seen"

// refused tells of a manifest that cannot be used. Of a pod that runs it is the newer
// one: the pod stays as it was.
func (e *explainer) refused() Gate {
	g := Gate{
		Gate: GateSource, State: GateBlocked, Reason: "CannotUseManifest", Since: moment(e.Refused[0].Since), Failures: len(e.Refused),
		Do: "mend the file: it is read again as soon as it is written",
	}
	if e.Dead {
		g.Since = nil // it is when it was read just now
	}
	var all []string
	for _, r := range e.Refused {
		where := r.File
		if r.Line > 0 {
			where += fmt.Sprintf(":%d", r.Line)
		}
		all = append(all, where+": "+r.Message)
	}
	g.LastError = strings.Join(all, "; ")
	if e.Desired.Pod != nil {
		g.Detail = "the pod stays as its manifest last was when it could be used"
	}
	return g
}

// admission: the node takes the pod on now.
func (e *explainer) admission() Gate {
	switch r := e.Desired.Rejected; {
	case r != nil:
		return Gate{
			State: GateFailed, Reason: r.Reason, LastError: r.Message, Since: e.since(corev1.PodReady),
			Do: "change what the pod asks for, or the node; a pod that was refused is not tried again",
		}
	case e.Held != "":
		return Gate{State: GateWaiting, Detail: e.Held}
	case e.Desired.unbuilt(&e.Observed) != nil:
		r := e.Desired.Unbuilt
		return Gate{
			State: GateBlocked, Reason: r.Reason, LastError: r.Message, Since: e.since(corev1.PodReady),
			Do: "change what the pod asks for, or run it on another node",
		}
	case e.Behind != "":
		return Gate{State: GateWaiting, Reason: "NameInUse", Detail: fmt.Sprintf("an earlier pod of the same name (uid %s) has to be gone first", e.Behind)}
	}
	return Gate{State: GatePassed, Since: moment(e.Observed.started())}
}

// idle is why a step is not under way that nothing hinders.
func (e *explainer) idle() Gate {
	if e.Dead {
		return Gate{State: GateWaiting, Detail: "nothing is done while the daemon does not answer"}
	}
	return Gate{State: GateWaiting, Detail: "it is next"}
}

// released is what a pod that has ended has left of a gate.
func (e *explainer) released(op ...Op) Gate {
	g := Gate{State: GatePassed, Detail: "released: the pod has ended"}
	for _, o := range op {
		if f, failed := e.Observed.Failed[o]; failed {
			g = failure(f)
			g.State, g.Detail = GatePassed, "to be released: the pod has ended"
		}
	}
	return g
}

// sandbox: record, namespaces, cgroup and directories are there.
func (e *explainer) sandbox() Gate {
	o := &e.Observed
	s, run := o.newestSandbox(), Op{Kind: RunSandbox}
	if e.ended() {
		return e.released()
	}
	if s != nil && s.State == SandboxReady {
		return Gate{State: GatePassed, Since: moment(s.Created)}
	}
	if f, failed := e.failed(StopSandbox, StopContainer); failed {
		g := failure(f)
		g.Detail = "what is left of the sandbox before has to end first"
		return g
	}
	f, failed := o.Failed[run]
	prepare, unprepared := o.Failed[Op{Kind: Prepare}]
	switch {
	case unprepared && prepare.Reason == ReasonFailedCreatePodSandBox:
		return failure(prepare)
	case o.Running[run]:
		return e.hanging(e.under(run, "it is being made, or waits for its turn: a few pods are started at a time"), e.Flights[run].Since)
	case failed && f.Network, o.NetworkNotReady != "" && !e.Desired.Pod.Spec.HostNetwork:
		return Gate{State: GateWaiting, Detail: "it is made together with the pod's network"}
	case failed:
		g := failure(f)
		g.Do = "the error says what is in the way; containerd's and this daemon's logs say more"
		return g
	}
	g := e.idle()
	if s != nil {
		g.Reason = s.Reason
		g.Detail = "the sandbox before cannot be used any more: " + g.Detail
	}
	return g
}

// network: the pod has its addresses.
func (e *explainer) network() Gate {
	o := &e.Observed
	if e.Desired.Pod.Spec.HostNetwork {
		return Gate{State: GatePassed, Detail: "the node's own network"}
	}
	s := o.newestSandbox()
	if e.ended() {
		var stops []Op
		for _, s := range o.Sandboxes {
			stops = append(stops, Op{Kind: StopSandbox, Object: s.ID})
		}
		return e.released(stops...)
	}
	if s != nil && s.State == SandboxReady {
		return Gate{State: GatePassed, Since: moment(s.Created), Detail: addresses(s)}
	}
	run := Op{Kind: RunSandbox}
	f, failed := o.Failed[run]
	switch {
	case o.Running[run]:
		return Gate{State: GateNotReached, Detail: "it is set up with the sandbox"}
	case failed && f.Network:
		g := failure(f)
		g.Do = adviceNetwork
		return g
	case o.NetworkNotReady != "":
		return Gate{
			State: GateBlocked, Reason: ReasonNetworkNotReady, LastError: o.NetworkNotReady,
			Detail: "tried as soon as it is ready", Do: adviceNetwork,
		}
	}
	return Gate{State: GateNotReached}
}

func addresses(s *Sandbox) string {
	var all []string
	for _, a := range s.Addrs {
		all = append(all, a.String())
	}
	return strings.Join(all, ", ")
}

// volumes: all volumes of the pod are set up.
func (e *explainer) volumes() Gate {
	o := &e.Observed
	prepare, refresh := Op{Kind: Prepare}, Op{Kind: RefreshVolumes}
	if e.ended() {
		return e.released(Op{Kind: ReleaseCgroup})
	}
	f, failed := o.Failed[prepare]
	switch {
	case o.Prepared, e.Dead && e.begun():
		g := Gate{State: GatePassed, Since: moment(o.started())}
		if late, stale := o.Failed[refresh]; stale {
			g = failure(late)
			g.State, g.Detail = GatePassed, "they show what objects were before: bringing them up to date fails"
			g.Since = moment(o.started())
		}
		return g
	case o.Running[prepare]:
		return e.under(prepare, "they are being set up")
	case failed && f.Reason == ReasonFailedMount:
		g := failure(f)
		g.Do = "mend what the message names; it is tried again by itself"
		if f.Absent {
			g.Detail, g.Do = "tried as soon as it is there", "create what is missing: the pod goes on as soon as it is there"
		}
		return g
	case failed:
		return Gate{State: GateNotReached}
	}
	if missing := e.lacks(volumeReferences(e.Desired.Pod)); missing != "" {
		return Gate{State: GateBlocked, Reason: ReasonFailedMount, LastError: missing, Do: "create what is missing: the pod goes on as soon as it is there"}
	}
	if s := o.newestSandbox(); e.Dead && s != nil && s.State == SandboxReady {
		return Gate{State: GatePassed, Detail: "nothing that can be seen without the daemon is missing"}
	}
	return e.idle()
}

// begun tells whether a container was made in the sandbox that there is, which it never
// is before the volumes are.
func (e *explainer) begun() bool {
	s := e.Observed.newestSandbox()
	return s != nil && e.Observed.anyOf(s.ID)
}

// ready: every container is, and every readiness gate is open.
func (e *explainer) ready() Gate {
	s := e.status
	switch {
	case e.ended() && s.Phase == corev1.PodFailed:
		g := Gate{State: GateFailed, Reason: s.Reason, LastError: s.Message, Since: e.since(corev1.PodReady)}
		if g.Reason == ReasonDeadlineExceeded {
			g.Do = "give it a longer activeDeadlineSeconds, or look at why it took so long"
		}
		if g.LastError == "" {
			g.State, g.Detail = GateNotReached, "the pod has failed"
		}
		return g
	case e.ended():
		return Gate{State: GateNotReached, Detail: "the pod has completed", Since: e.since(corev1.PodReady)}
	}
	for _, c := range s.Conditions {
		if c.Type != corev1.PodReady {
			continue
		}
		g := Gate{State: GatePassed, Since: e.since(corev1.PodReady), Reason: c.Reason}
		switch {
		case c.Status == corev1.ConditionTrue:
		case c.Reason == "ReadinessGatesNotReady":
			g.State, g.LastError = GateBlocked, c.Message
			g.Do = "the controller that owns the condition has to set it to True in the pod's status"
			if static(e.Desired.Pod) {
				g.Do = "a pod of a manifest has nobody to write the condition: take spec.readinessGates out"
			}
		default:
			g.State, g.Detail = GateNotReached, c.Message
		}
		return g
	}
	return Gate{State: GateNotReached}
}

// since is when the condition changed last, as it was told.
func (e *explainer) since(t corev1.PodConditionType) *time.Time {
	if e.Told == nil {
		return nil
	}
	for _, c := range e.Told.Conditions {
		if c.Type == t {
			return moment(c.LastTransitionTime.Time)
		}
	}
	return nil
}
