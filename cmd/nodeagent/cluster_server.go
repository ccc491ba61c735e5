package main

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"nodeagent/internal/source"
	"nodeagent/internal/status"
)

// serverPods is what the API server has, for who compares it with what is: the
// latest snapshot, with the echoes of our own words laid over it, of which the
// source makes no snapshot.
type serverPods struct {
	mu       sync.Mutex
	pods     []*corev1.Pod
	mirrors  []*corev1.Pod
	echoes   map[types.UID]echoed
	complete bool
}

// echoed is a pod that came after the one of the snapshot.
type echoed struct{ listed, latest *corev1.Pod }

// put takes a snapshot and hands on what there is.
func (s *serverPods) put(snap source.Snapshot, tell func(status.Snapshot)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods, s.mirrors, s.complete = snap.Pods, snap.Mirrors, snap.Listed
	still := map[types.UID]echoed{}
	for _, all := range [][]*corev1.Pod{s.pods, s.mirrors} {
		for _, p := range all {
			// One that came before its pod was listed may have been overtaken.
			if e, ok := s.echoes[p.UID]; ok && (e.listed == p || e.listed == nil && later(e.latest, p)) {
				still[p.UID] = echoed{p, e.latest}
			}
		}
	}
	s.echoes = still
	tell(s.whole())
}

// mirrorCount is how many mirror pods the API server has.
func (s *serverPods) mirrorCount() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(len(s.mirrors))
}

// later tells whether p is a later version than q of the same pod.
func later(p, q *corev1.Pod) bool {
	n, err := resourceversion.CompareResourceVersion(p.ResourceVersion, q.ResourceVersion)
	return err == nil && n > 0
}

// echo takes a pod of which only the node's own words have changed.
func (s *serverPods) echo(p *corev1.Pod, tell func(status.Snapshot)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := echoed{latest: p}
	for _, all := range [][]*corev1.Pod{s.pods, s.mirrors} {
		for _, listed := range all {
			if listed.UID == p.UID {
				e.listed = listed
			}
		}
	}
	if s.echoes == nil {
		s.echoes = map[types.UID]echoed{}
	}
	s.echoes[p.UID] = e
	tell(s.whole())
}

// whole is everything that the API server has. Called with mu held.
func (s *serverPods) whole() status.Snapshot {
	latest := func(all []*corev1.Pod) []*corev1.Pod {
		out := make([]*corev1.Pod, len(all))
		for i, p := range all {
			if out[i] = p; s.echoes[p.UID].latest != nil {
				out[i] = s.echoes[p.UID].latest
			}
		}
		return out
	}
	return status.Snapshot{Pods: latest(s.pods), Mirrors: latest(s.mirrors), Synced: s.complete}
}
