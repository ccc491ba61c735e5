package object

import (
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
)

// Whoever watches the Services tells of them by one goroutine: Begin, Tell for each, and
// Complete. That is Run, or somebody who watches them anyway; then Run is not called.

// Begin: everything is told from the start. What was known before stays until Complete.
func (s *Services) Begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh = byName{}
}

// Tell tells of one Service. It keeps nothing of the object but what variables need.
func (s *Services) Tell(o *corev1.Service, gone bool) {
	kept, told := pod.ServiceOf(o)
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.all
	if s.fresh != nil {
		all = s.fresh
	} else {
		s.tellChanged()
	}
	if told && !gone {
		all.put(kept)
	} else {
		all.drop(o.Namespace, o.Name)
	}
}

// Complete: what was not told since Begin is not there.
func (s *Services) Complete() {
	s.mu.Lock()
	s.all, s.fresh = s.fresh, nil
	s.once.Do(func() { close(s.read) })
	s.mu.Unlock()
	s.tellChanged()
}
