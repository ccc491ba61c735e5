package main

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// sums are the sums of all histograms and the values of all else, by name and labels.
func sums(t *testing.T, r prometheus.Gatherer) map[string]float64 {
	t.Helper()
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range all {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			if h := m.GetHistogram(); h != nil {
				out[name+" count"] = float64(h.GetSampleCount())
			}
			out[name] = m.GetHistogram().GetSampleSum() + m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return out
}

// TestStarts: a pod's start is measured once, when a watcher hears that all of its
// containers run; what pulls took, even at a time, and init containers is no part of
// the service level, of which pods with storage are none.
func TestStarts(t *testing.T) {
	r := prometheus.NewRegistry()
	s := newStarts(r)
	made := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	after := func(seconds float64) time.Time { return made.Add(time.Duration(seconds * float64(time.Second))) }
	named := func(name string, volume corev1.VolumeSource) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(made)},
			Spec: corev1.PodSpec{Volumes: []corev1.Volume{{Name: "v", VolumeSource: volume}}}}
	}
	ran := func(p *corev1.Pod) *corev1.Pod {
		p = p.DeepCopy()
		p.Status.StartTime = &metav1.Time{Time: after(1)}
		p.Status.InitContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{StartedAt: metav1.NewTime(after(1)), FinishedAt: metav1.NewTime(after(3))}}}}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		return p
	}
	plain, stored := named("plain", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}), named("stored", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{}})
	early := ran(named("early", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}))
	s.listed([]*corev1.Pod{plain, stored, early}, after(1))
	s.pull(plain.UID, -1, after(1)) // an image that was there
	s.pull(plain.UID, 1, after(3))
	s.pull(plain.UID, 1, after(4))
	s.pull(plain.UID, -1, after(5))
	s.pull(plain.UID, -1, after(7))
	s.pull("nobody", 1, after(7))
	waits := ran(plain)
	waits.Status.ContainerStatuses = append(waits.Status.ContainerStatuses, corev1.ContainerStatus{})
	s.told(waits, after(8))
	for range 2 {
		s.told(ran(plain), after(10))
		s.listed([]*corev1.Pod{ran(plain), stored, early}, after(11))
	}
	s.listed([]*corev1.Pod{ran(plain), ran(stored), early}, after(20))
	got := sums(t, r)
	for name, want := range map[string]float64{
		"kubelet_pod_start_total_duration_seconds": 10 + 20, "kubelet_pod_start_total_duration_seconds count": 2,
		"kubelet_pod_start_sli_duration_seconds": 10 - 4 - 2, "kubelet_pod_start_sli_duration_seconds count": 1,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	s.listed(nil, after(21))
	if len(s.pods) != 0 {
		t.Errorf("pods that are gone stay: %v", s.pods)
	}
}

// TestTimes: what is counted is found under kubelet's names.
func TestTimes(t *testing.T) {
	o := newOperations()
	begun := time.Unix(1000, 0)
	o.relists.ended(begun, time.Second)
	o.relists.ended(begun.Add(10*time.Second), time.Second)
	o.asked.answered("GET", "api:6443", 200, time.Second)
	o.asked.answered("GET", "api:6443", 0, time.Second)
	ended := o.requests.begun("POST", "exec", true)
	if got := sums(t, o.registry)["kubelet_http_inflight_requests true POST exec readwrite"]; got != 1 {
		t.Errorf("%v requests are under way, want 1", got)
	}
	ended()
	got := sums(t, o.registry)
	for name, want := range map[string]float64{
		"kubelet_pleg_relist_duration_seconds": 2, "kubelet_pleg_relist_interval_seconds": 10, "kubelet_pleg_last_seen_seconds": 1010,
		"rest_client_requests_total 200 api:6443 GET": 1, "rest_client_requests_total <error> api:6443 GET": 1, "rest_client_request_duration_seconds api:6443 GET": 2,
		"kubelet_http_requests_total true POST exec readwrite": 1, "kubelet_http_inflight_requests true POST exec readwrite": 0,
		"kubelet_http_requests_duration_seconds true POST exec readwrite count": 1,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v of %v", name, got[name], want, got)
		}
	}
}

// TestHeard: that nobody was heard is no date, and the date of whom was heard is told.
func TestHeard(t *testing.T) {
	o, last := newOperations(), time.Time{}
	o.heard(func() time.Time { return last })
	for _, c := range []struct {
		at   time.Time
		want float64
	}{{time.Time{}, 0}, {time.Unix(1_800_000_000, 0), 1_800_000_000}} {
		last = c.at
		if got := sums(t, o.registry)["nodeagent_pods_watch_heard_timestamp_seconds"]; got != c.want {
			t.Errorf("heard at %s is told as %v", c.at, got)
		}
	}
}
