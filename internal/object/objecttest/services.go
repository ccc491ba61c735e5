package objecttest

import (
	"cmp"
	"context"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"nodeagent/internal/pod"
)

// ListServices implements object.ServicesAPI, one a page.
func (s *Server) ListServices(ctx context.Context, options metav1.ListOptions) (*corev1.ServiceList, error) {
	if err := s.enter(ctx, "list", pod.ObjectRef{Kind: serviceKind}); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []corev1.Service
	for _, o := range s.objects {
		if service, ok := o.(*corev1.Service); ok {
			all = append(all, *service.DeepCopy())
		}
	}
	slices.SortFunc(all, func(a, b corev1.Service) int { return cmp.Compare(a.UID, b.UID) })
	l := &corev1.ServiceList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.FormatInt(s.version, 10)}}
	from, _ := strconv.Atoi(options.Continue)
	if from < len(all) {
		l.Items = all[from : from+1]
	}
	if from+1 < len(all) {
		l.Continue = strconv.Itoa(from + 1)
	}
	return l, nil
}

// WatchServices implements object.ServicesAPI.
func (s *Server) WatchServices(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	return s.Watch(ctx, pod.ObjectRef{Kind: serviceKind}, options)
}
