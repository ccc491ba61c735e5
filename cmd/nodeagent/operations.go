package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	apinode "nodeagent/internal/node"
	"nodeagent/internal/worker"
)

// operations counts what the daemon does, under kubelet's names. Labels are words of
// this file: nothing that a pod or a client invents makes a series.
type operations struct {
	registry      *prometheus.Registry
	total, failed *prometheus.CounterVec
	took          *prometheus.HistogramVec
	relists       relists
	pods          podTimes
	starts        *starts
	requests      nodeRequests
	asked         serverRequests
	counts        counts
	slis          slis
}

func newOperations() *operations {
	of := []string{"operation_type"}
	o := &operations{
		slis:     newSLIs(),
		registry: prometheus.NewRegistry(),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubelet_runtime_operations_total", Help: "[ALPHA] Cumulative number of runtime operations by operation type.",
		}, of),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubelet_runtime_operations_errors_total", Help: "[ALPHA] Cumulative number of runtime operation errors by operation type.",
		}, of),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kubelet_runtime_operations_duration_seconds", Help: "[ALPHA] Duration in seconds of runtime operations. Broken down by operation type.",
			Buckets: prometheus.ExponentialBuckets(.005, 2.5, 14),
		}, of),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kubernetes_build_info", Help: "[ALPHA] The release of Kubernetes that this program stands in for, and its own version.",
		ConstLabels: prometheus.Labels{"git_version": apinode.Version(kubernetesRelease, version)},
	})
	build.Set(1)
	o.counts = newCounts(o.registry)
	o.relists, o.pods, o.starts = newRelists(o.registry), newPodTimes(o.registry, o.counts), newStarts(o.registry)
	o.requests, o.asked = newNodeRequests(o.registry), newServerRequests(o.registry)
	o.registry.MustRegister(o.total, o.failed, o.took, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return o
}

// timed counts one operation.
func (o *operations) timed(name string, do func() error) error {
	begun := time.Now()
	err := do()
	o.total.WithLabelValues(name).Inc()
	o.took.WithLabelValues(name).Observe(time.Since(begun).Seconds())
	if err != nil {
		o.failed.WithLabelValues(name).Inc()
	}
	return err
}

// sandboxes counts what is done with sandboxes.
func (o *operations) sandboxes(all worker.Sandboxes) worker.Sandboxes {
	return countedSandboxes{all, o}
}

type countedSandboxes struct {
	all worker.Sandboxes
	*operations
}

func (c countedSandboxes) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (id string, err error) {
	err = c.timed("run_podsandbox", func() error {
		id, err = c.all.RunPodSandbox(ctx, config, handler)
		return err
	})
	c.counts.pod(err)
	return id, err
}

func (c countedSandboxes) StopPodSandbox(ctx context.Context, id string) error {
	return c.timed("stop_podsandbox", func() error { return c.all.StopPodSandbox(ctx, id) })
}

func (c countedSandboxes) RemovePodSandbox(ctx context.Context, id string) error {
	return c.timed("remove_podsandbox", func() error { return c.all.RemovePodSandbox(ctx, id) })
}

// containers counts what is done with containers.
func (o *operations) containers(all worker.Containers) worker.Containers {
	return countedContainers{all, o}
}

type countedContainers struct {
	all worker.Containers
	*operations
}

func (c countedContainers) CreateContainer(ctx context.Context, sandbox string, config *runtimeapi.ContainerConfig, in *runtimeapi.PodSandboxConfig) (id string, err error) {
	err = c.timed("create_container", func() error {
		id, err = c.all.CreateContainer(ctx, sandbox, config, in)
		return err
	})
	return id, err
}

func (c countedContainers) StartContainer(ctx context.Context, id string) error {
	return c.timed("start_container", func() error { return c.all.StartContainer(ctx, id) })
}

func (c countedContainers) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	return c.timed("stop_container", func() error { return c.all.StopContainer(ctx, id, grace) })
}

func (c countedContainers) RemoveContainer(ctx context.Context, id string) error {
	return c.timed("remove_container", func() error { return c.all.RemoveContainer(ctx, id) })
}
