package proxy

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Listener hears of all Services, also of those that no proxy of the node serves, so that
// one watch is enough for who needs them beside the rules. It is called by one goroutine,
// and must not block: the rules would wait.
type Listener interface {
	// Begin: everything is told from the start.
	Begin()
	// Tell tells of one Service, which it must not keep.
	Tell(s *corev1.Service, gone bool)
	// Complete: what was not told since Begin is not there.
	Complete()
}

// The labels of what no proxy of the node serves, whatever they say.
const (
	headlessLabel = corev1.IsHeadlessService
	proxyLabel    = "service.kubernetes.io/service-proxy-name"
	notOurs       = "!" + headlessLabel + ",!" + proxyLabel
)

// hear tells the Listener, if there is one, and returns whether the object is not there
// for the rules.
func (f *follower) hear(o metav1.Object, gone bool) bool {
	s, ok := o.(*corev1.Service)
	if f.listener == nil || !ok {
		return gone
	}
	f.listener.Tell(s, gone)
	_, headless := s.Labels[headlessLabel]
	_, others := s.Labels[proxyLabel]
	return gone || headless || others
}

// begin says that everything will be told.
func (f *follower) begin() {
	if f.listener != nil {
		f.listener.Begin()
	}
}

// complete says that everything was told.
func (f *follower) complete() {
	if f.listener != nil {
		f.listener.Complete()
	}
}
