package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
	"nodeagent/internal/worker"
)

// counts are figures that count what was begun and what failed, beside those of the
// runtime's operations.
type counts struct {
	pods, podErrors             prometheus.Counter
	containers, containerErrors *prometheus.CounterVec
	volumes                     *prometheus.HistogramVec
	cgroups                     *prometheus.HistogramVec
	version                     prometheus.Gauge
}

func newCounts(r prometheus.Registerer) counts {
	counter := func(name, help string) prometheus.CounterOpts { return prometheus.CounterOpts{Name: name, Help: help} }
	c := counts{
		pods:      prometheus.NewCounter(counter("kubelet_started_pods_total", "[ALPHA] Cumulative number of pods started")),
		podErrors: prometheus.NewCounter(counter("kubelet_started_pods_errors_total", "[ALPHA] Cumulative number of errors when starting pods")),
		containers: prometheus.NewCounterVec(counter("kubelet_started_containers_total",
			"[ALPHA] Cumulative number of containers started"), []string{"container_type"}),
		containerErrors: prometheus.NewCounterVec(counter("kubelet_started_containers_errors_total",
			"[ALPHA] Cumulative number of errors when starting containers"), []string{"container_type", "code"}),
		volumes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "storage_operation_duration_seconds", Help: "[ALPHA] Storage operation duration",
			Buckets: []float64{.1, .25, .5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600},
		}, []string{"volume_plugin", "operation_name", "status", "migrated"}),
		cgroups: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kubelet_cgroup_manager_duration_seconds", Help: "[ALPHA] Duration in seconds for cgroup manager operations. Broken down by method.",
			Buckets: prometheus.DefBuckets,
		}, []string{"operation_type"}),
		version: prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubelet_cgroup_version", Help: "[ALPHA] cgroup version on the hosts."}),
	}
	r.MustRegister(c.pods, c.podErrors, c.containers, c.containerErrors, c.volumes, c.cgroups, c.version)
	return c
}

// container counts an attempt to start one. Reasons are pod's words.
func (c counts) container(p *corev1.Pod, name, reason string) {
	kind := pod.ContainerType(p, name)
	c.containers.WithLabelValues(kind).Inc()
	if reason != "" {
		c.containerErrors.WithLabelValues(kind, reason).Inc()
	}
}

// pod counts an attempt to start one: each of its sandboxes.
func (c counts) pod(err error) {
	c.pods.Inc()
	if err != nil {
		c.podErrors.Inc()
	}
}

// volume takes one that was set up, or brought up to date.
func (c counts) volume(vol *corev1.Volume, took time.Duration, err error) {
	status := "success"
	if err != nil {
		status = "fail-unknown"
	}
	if plugin := pod.VolumePlugin(vol); plugin != "" {
		c.volumes.WithLabelValues(plugin, "volume_mount", status, "false").Observe(took.Seconds())
	}
}

// onCgroups counts what is done with pods' cgroups, which are of that version.
func (c counts) onCgroups(all worker.Cgroups, v2 bool) worker.Cgroups {
	c.version.Set(1)
	if v2 {
		c.version.Set(2)
	}
	return countedCgroups{all, c}
}

type countedCgroups struct {
	all worker.Cgroups
	counts
}

func (c countedCgroups) timed(operation string, begun time.Time) {
	c.cgroups.WithLabelValues(operation).Observe(time.Since(begun).Seconds())
}

// EnsurePod implements worker.Cgroups.
func (c countedCgroups) EnsurePod(ctx context.Context, uid types.UID, qos corev1.PodQOSClass, r pod.Resources) (string, error) {
	defer c.timed("create", time.Now())
	return c.all.EnsurePod(ctx, uid, qos, r)
}

// RemovePod implements worker.Cgroups.
func (c countedCgroups) RemovePod(ctx context.Context, uid types.UID) error {
	defer c.timed("destroy", time.Now())
	return c.all.RemovePod(ctx, uid)
}
