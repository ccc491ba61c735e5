package source

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// emit hands over a snapshot where anything changed since the latest.
func (a *API) emit() {
	if !a.changed {
		return
	}
	a.changed = false
	s := Snapshot{Source: sourceAPI, Synced: true, Trusted: a.trusted, Listed: a.listed}
	cached := !a.listed && !a.away
	var running map[types.UID]bool
	if cached {
		running = a.running()
	}
	for uid, h := range a.pods {
		switch {
		case mirror(h.pod):
			s.Mirrors = append(s.Mirrors, h.pod)
		case !cached || running[uid]: // of the cache, nothing begins before the server was asked
			s.want(h.pod)
		}
	}
	slices.SortFunc(s.Pods, byName)
	slices.SortFunc(s.Mirrors, byName)
	if a.failed.Message != "" {
		s.Problems = append(s.Problems, a.failed)
	}
	if d := a.doubt; d != nil {
		s.Problems = append(s.Problems, Problem{File: a.server.name, Since: d.since,
			Message: fmt.Sprintf("%s: no pod is ended for that before the server, asked again after %s, says the same", d.why, confirmAfter)})
	}
	if a.cache != nil && a.listed {
		a.cache.offer(s.Pods)
	}
	a.cfg.Emit(s)
}

// want lists a pod, and for how long it may still run if it is to go.
func (s *Snapshot) want(p *corev1.Pod) {
	s.Pods = append(s.Pods, p)
	if p.DeletionTimestamp == nil {
		return
	}
	if s.Ending == nil {
		s.Ending = map[types.UID]int64{}
	}
	s.Ending[p.UID] = graceOf(p)
}

// graceOf is what a pod that is to go was given: by who deleted it, else by its
// spec; at least a second, as kubelet has it.
func graceOf(p *corev1.Pod) int64 {
	grace := int64(corev1.DefaultTerminationGracePeriodSeconds)
	switch {
	case p.DeletionGracePeriodSeconds != nil:
		grace = *p.DeletionGracePeriodSeconds
	case p.Spec.TerminationGracePeriodSeconds != nil:
		grace = *p.Spec.TerminationGracePeriodSeconds
	}
	return max(1, grace)
}

func byName(a, b *corev1.Pod) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
}
