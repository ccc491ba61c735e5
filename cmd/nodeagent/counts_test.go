package main

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
	"nodeagent/internal/server"
)

// TestCounts: what was begun and what failed is counted under kubelet's names, and what a
// pod calls its containers and volumes makes no series.
func TestCounts(t *testing.T) {
	r := prometheus.NewRegistry()
	c := newCounts(r)
	p := &corev1.Pod{Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "first"}}, Containers: []corev1.Container{{Name: "app"}},
		EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "look"}}}}}
	for name, reason := range map[string]string{"first": "", "app": pod.ReasonErrImagePull, "look": "", "none": ""} {
		c.container(p, name, reason)
	}
	c.pod(nil)
	c.pod(errors.New("no network"))
	c.volume(&corev1.Volume{Name: "a", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}, 2*time.Second, nil)
	c.volume(&corev1.Volume{Name: "b", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{}}}, time.Second, errors.New("not found"))
	c.volume(&corev1.Volume{Name: "c", VolumeSource: corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}}, time.Second, errors.New("not built"))
	tree := c.onCgroups(noCgroups{}, true)
	_, _ = tree.EnsurePod(t.Context(), "", "", pod.Resources{})
	_ = tree.RemovePod(t.Context(), "")
	got := sums(t, r)
	for name, want := range map[string]float64{
		"kubelet_started_containers_total init_container":                                         1,
		"kubelet_started_containers_total container":                                              2,
		"kubelet_started_containers_total ephemeral_container":                                    1,
		"kubelet_started_containers_errors_total ErrImagePull container":                          1,
		"kubelet_started_pods_total":                                                              2,
		"kubelet_started_pods_errors_total":                                                       1,
		"storage_operation_duration_seconds false volume_mount success kubernetes.io/empty-dir":   2,
		"storage_operation_duration_seconds false volume_mount fail-unknown kubernetes.io/secret": 1,
		"kubelet_cgroup_manager_duration_seconds create count":                                    1,
		"kubelet_cgroup_manager_duration_seconds destroy count":                                   1,
		"kubelet_cgroup_version":                                                                  2,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if len(got) != 15 {
		t.Errorf("there are %d figures: %v", len(got), got)
	}
}

type noCgroups struct{}

func (noCgroups) EnsurePod(context.Context, types.UID, corev1.PodQOSClass, pod.Resources) (string, error) {
	return "", nil
}
func (noCgroups) RemovePod(context.Context, types.UID) error { return nil }

// TestSLIs: each look says what holds now and is counted.
func TestSLIs(t *testing.T) {
	s, fails := newSLIs(), error(nil)
	write := s.write(server.Checks{{Name: "pods", OK: func() error { return nil }}, {Name: "runtime", OK: func() error { return fails }}})
	for _, fails = range []error{nil, nil, errors.New("it is away")} {
		if err := write(t.Context(), io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	got := sums(t, s.registry)
	for name, want := range map[string]float64{
		"kubernetes_healthcheck pods healthz": 1, "kubernetes_healthcheck runtime healthz": 0,
		"kubernetes_healthchecks_total pods success healthz": 3, "kubernetes_healthchecks_total runtime success healthz": 2, "kubernetes_healthchecks_total runtime error healthz": 1,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v of %v, want %v", name, v, got, want)
		}
	}
}
