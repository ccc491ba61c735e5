package status

import (
	"bytes"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// step is what can be asked of the API server.
type step string

const (
	none   step = ""
	patch  step = "write the status"
	create step = "make the mirror pod"
	remove step = "delete the pod"
	look   step = "read the pod"
)

// task is one request to come.
type task struct {
	step   step
	pod    *corev1.Pod // to be made, written to or deleted
	status corev1.PodStatus
	patch  []byte
	haste  bool // somebody waits for it
}

// facts are what a plan depends on beside the record.
type facts struct {
	node Node
	// unwanted: no static pod of the record's name is to come.
	unwanted bool
}

// plan finds what is to be asked of the API server next.
func (r *record) plan(f facts, now time.Time) task {
	switch {
	case r.look:
		return task{step: look, haste: true}
	case r.key.uid == "":
		return r.planMirror(f, now)
	case r.api == nil || r.told == nil:
		return task{}
	}
	last := r.gone && r.api.DeletionTimestamp != nil
	if t := r.write(now); t.step != none && !(last && saysEnd(r.api, &t.status)) {
		t.haste = t.haste || last // the final delete waits for it, and who deleted the pod for that
		return t
	}
	if last {
		return task{step: remove, pod: r.api, haste: true}
	}
	return task{}
}

// saysEnd tells whether the API server knows all that matters of how the pod ended:
// its phase, and how each container did. That its network is gone too need not be told
// of a pod which is gone with the next request, unless somebody's finalizer keeps it.
func saysEnd(api *corev1.Pod, want *corev1.PodStatus) bool {
	have := &api.Status
	return len(api.Finalizers) == 0 && over(have.Phase) && have.Phase == want.Phase &&
		have.Reason == want.Reason && have.Message == want.Message &&
		bytes.Equal(encode(have.InitContainerStatuses), encode(want.InitContainerStatuses)) &&
		bytes.Equal(encode(have.ContainerStatuses), encode(want.ContainerStatuses)) &&
		bytes.Equal(encode(have.EphemeralContainerStatuses), encode(want.EphemeralContainerStatuses))
}

// planMirror keeps the API server's copy of a static pod.
func (r *record) planMirror(f facts, now time.Time) task {
	static := r.told
	if r.gone {
		static = nil
	}
	switch {
	case static == nil && r.api == nil:
		return task{}
	case static == nil && f.unwanted, static != nil && r.api != nil && outdated(r.api, static, f.node):
		return task{step: remove, pod: r.api, haste: true}
	case static == nil, f.node.UID == "" && r.api == nil:
		return task{} // whoever knows more wakes us
	case r.api == nil:
		return task{step: create, pod: mirrorOf(static, f.node), haste: true}
	}
	return r.write(now)
}

// write finds what of the status the API server lacks.
func (r *record) write(now time.Time) task {
	wanted := merge(r.api, r.told, r.gone)
	diff := difference(r.api.UID, &r.api.Status, &wanted)
	if diff == nil {
		r.skip, r.skipUntil = nil, time.Time{}
	}
	if diff == nil || bytes.Equal(diff, r.skip) && (r.skipUntil.IsZero() || now.Before(r.skipUntil)) {
		return task{}
	}
	return task{step: patch, pod: r.api, status: wanted, patch: diff, haste: matters(&r.api.Status, &wanted)}
}

// matters tells whether somebody waits for the change: the scheduler, a controller
// or a service. All else may wait for company.
func matters(have, want *corev1.PodStatus) bool {
	return have.Phase != want.Phase && want.Phase != corev1.PodPending || isReady(have) != isReady(want)
}

func isReady(s *corev1.PodStatus) bool {
	c := conditionOf(s.Conditions, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// How long a change waits that nobody waits for.
const (
	// quiet is for all but what follows.
	quiet = 250 * time.Millisecond
	// starting is for a pod that begins without trouble: it is ready before it is over,
	// also on a busy node, and then all is told with that.
	starting = time.Second
	// patience is the longest wait for what others are told in haste. While many pods
	// begin at once, each request of theirs takes time from the next pod's start, at the
	// API server and here; so what nobody waits for comes when they are up.
	patience = 10 * time.Second
	// lull is how long after the last thing of haste no more of it is to be expected.
	lull = 500 * time.Millisecond
)

// waits tells when something may be told of which nobody waits: calm after it came up at
// since, and not before busy, but with patience.
func waits(since time.Time, calm time.Duration, busy time.Time) time.Time {
	at, latest := since.Add(calm), since.Add(patience)
	switch {
	case busy.After(latest):
		return latest
	case busy.After(at):
		return busy
	}
	return at
}

// begins tells whether the status is that of a pod on its way up of which nothing went
// wrong: nobody can do anything about it but wait.
func begins(s *corev1.PodStatus) bool {
	trouble := func(c corev1.ContainerStatus) bool {
		w, end := c.State.Waiting, c.State.Terminated
		return c.RestartCount > 0 || end != nil && end.ExitCode != 0 ||
			w != nil && w.Reason != pod.ReasonContainerCreating && w.Reason != pod.ReasonPodInitializing
	}
	return s.Phase == corev1.PodPending && s.Reason == "" && s.Message == "" &&
		!slices.ContainsFunc(s.InitContainerStatuses, trouble) && !slices.ContainsFunc(s.ContainerStatuses, trouble) &&
		!slices.ContainsFunc(s.EphemeralContainerStatuses, trouble)
}

// How often one pod is written to. Who is restarted or gets ready and unready all
// the time tells of it less often; what it is in the end is always told.
var (
	noisePace = pace{burst: 5, every: 10 * time.Second}
	hastePace = pace{burst: 10, every: time.Second}
)

// due tells when the next step may be taken; until busy others have more haste.
func (r *record) due(now, busy time.Time) time.Time {
	at := now
	switch {
	case r.next.step == remove && r.key.uid != "":
	case r.next.haste:
		at = r.haste.when(hastePace, now)
	default:
		at = r.noise.when(noisePace, now)
		calm := r.since.Add(quiet)
		if r.next.step == patch && begins(&r.next.status) {
			calm = waits(r.since, starting, busy)
		}
		if calm.After(at) {
			at = calm
		}
	}
	if r.retryAt.After(at) {
		at = r.retryAt
	}
	return at
}

// spend counts the step that is taken now.
func (r *record) spend(now time.Time) {
	if r.next.haste {
		r.haste.take(hastePace, now)
	} else {
		r.noise.take(noisePace, now)
	}
}

// target is the pod's name at the API server.
func (r *record) target() types.NamespacedName {
	switch {
	case r.key.uid == "":
		return r.key.name
	case r.api != nil:
		return types.NamespacedName{Namespace: r.api.Namespace, Name: r.api.Name}
	case r.told != nil:
		return types.NamespacedName{Namespace: r.told.Namespace, Name: r.told.Name}
	}
	return types.NamespacedName{}
}
