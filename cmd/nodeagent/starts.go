package main

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/worker"
)

// starts measures, as kubelet does, how long pods of the API server take from their
// making until a watcher hears that all of their containers run: with everything, and
// without what images and init containers take, for pods without storage of their own.
// It knows the pods of the latest snapshot and no others.
type starts struct {
	all, sli prometheus.Observer

	mu   sync.Mutex
	pods map[types.UID]*podStart // nil: measured, or here before the daemon
}

// podStart is a pod that does not run yet.
type podStart struct {
	pulls  int // under way
	since  time.Time
	pulled time.Duration // with at least one under way
}

func newStarts(r prometheus.Registerer) *starts {
	all := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "kubelet_pod_start_total_duration_seconds", Buckets: startBuckets,
		Help: "[ALPHA] Duration in seconds to start a pod since creation, including time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch",
	}, nil)
	sli := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "kubelet_pod_start_sli_duration_seconds", Buckets: startBuckets,
		Help: "[ALPHA] Duration in seconds to start a pod, excluding time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch",
	}, nil)
	r.MustRegister(all, sli)
	return &starts{all: all.WithLabelValues(), sli: sli.WithLabelValues(), pods: map[types.UID]*podStart{}}
}

// listed takes all pods that the API server has for the node. One that has a time of
// start already was begun by an earlier daemon.
func (s *starts) listed(pods []*corev1.Pod, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	still := make(map[types.UID]*podStart, len(pods))
	for _, p := range pods {
		start, known := s.pods[p.UID]
		if !known && p.Status.StartTime == nil {
			start = &podStart{}
		}
		still[p.UID] = start
		s.measure(still, p, now)
	}
	s.pods = still
}

// told takes a pod of which the API server has told what the node said of it.
func (s *starts) told(p *corev1.Pod, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.measure(s.pods, p, now)
}

// measure tells of a pod when all of its containers run. Called with mu held.
func (s *starts) measure(pods map[types.UID]*podStart, p *corev1.Pod, now time.Time) {
	start := pods[p.UID]
	if start == nil || !allRun(p) {
		return
	}
	pods[p.UID] = nil
	took := now.Sub(p.CreationTimestamp.Time)
	s.all.Observe(took.Seconds())
	if !hasStorage(p) {
		s.sli.Observe(max(took-start.pulled-initTime(p), 0).Seconds())
	}
}

// allRun tells whether each container of the pod was told to run.
func allRun(p *corev1.Pod) bool {
	for i := range p.Status.ContainerStatuses {
		if p.Status.ContainerStatuses[i].State.Running == nil {
			return false
		}
	}
	return len(p.Status.ContainerStatuses) > 0
}

// hasStorage tells whether the pod mounts anything that is not made for it: the SLI is
// about pods that do not.
func hasStorage(p *corev1.Pod) bool {
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.Secret == nil && v.ConfigMap == nil && v.DownwardAPI == nil && v.EmptyDir == nil && v.Projected == nil {
			return true
		}
	}
	return false
}

// initTime is how long init containers ran, by the seconds of the status.
func initTime(p *corev1.Pod) (sum time.Duration) {
	for i := range p.Status.InitContainerStatuses {
		if ended := p.Status.InitContainerStatuses[i].State.Terminated; ended != nil {
			sum += max(ended.FinishedAt.Sub(ended.StartedAt.Time), 0)
		}
	}
	return sum
}

// events has pulls counted by what pods are told of them.
func (s *starts) events(all worker.Events) worker.Events { return pullEvents{all, s} }

type pullEvents struct {
	worker.Events
	starts *starts
}

// Pod implements worker.Events.
func (e pullEvents) Pod(p *corev1.Pod, container, kind, reason, message string) {
	switch reason {
	case "Pulling":
		e.starts.pull(p.UID, 1, time.Now())
	case "Pulled", "Failed":
		e.starts.pull(p.UID, -1, time.Now())
	}
	e.Events.Pod(p, container, kind, reason, message)
}

// pull notes that a pull begins or, where one is under way, has ended.
func (s *starts) pull(uid types.UID, by int, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	start := s.pods[uid]
	if start == nil || start.pulls+by < 0 {
		return
	}
	if start.pulls == 0 {
		start.since = now
	}
	if start.pulls += by; start.pulls == 0 {
		start.pulled += now.Sub(start.since)
	}
}
