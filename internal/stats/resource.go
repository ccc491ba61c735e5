package stats

import (
	"context"
	"io"
	"time"

	dto "github.com/prometheus/client_model/go"
)

const second = float64(time.Second)

// WriteResource writes what kubelet serves at /metrics/resource, which is what
// metrics-server reads. It drops a whole pod of which one container has no CPU or no
// memory, so that a container is told of with both, or not at all.
func (m *Meter) WriteResource(ctx context.Context, w io.Writer) error {
	r, err := m.Read(ctx)
	if err != nil {
		return err
	}
	p := newPage(w)
	p.containers(r, family{"container_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the container in core-seconds", true},
		func(c *Container) (float64, bool) { return float64(c.CPUNanos) / second, true })
	p.containers(r, family{"container_memory_working_set_bytes", "[STABLE] Current working set of the container in bytes", false},
		func(c *Container) (float64, bool) { return float64(c.MemoryWorkingSet), true })
	p.startTimes(r)
	p.containers(r, family{"container_swap_limit_bytes", "[ALPHA] Current amount of the container swap limit in bytes. Reported only on non-windows systems", false},
		func(c *Container) (float64, bool) { return swapLimit(&c.Figures) })
	p.containers(r, family{"container_swap_usage_bytes", "[ALPHA] Current amount of the container swap usage in bytes. Reported only on non-windows systems", false},
		func(c *Container) (float64, bool) { return float64(c.SwapBytes), true })
	p.node(r, family{"node_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the node in core-seconds", true}, float64(r.Node.CPUNanos)/second)
	p.node(r, family{"node_memory_working_set_bytes", "[STABLE] Current working set of the node in bytes", false}, float64(r.Node.MemoryWorkingSet))
	p.node(r, family{"node_swap_usage_bytes", "[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems", false}, float64(r.Node.SwapBytes))
	p.pods(r, family{"pod_cpu_usage_seconds_total", "[STABLE] Cumulative cpu time consumed by the pod in core-seconds", true},
		func(c *Cgroup) float64 { return float64(c.CPUNanos) / second })
	p.pods(r, family{"pod_memory_working_set_bytes", "[STABLE] Current working set of the pod in bytes", false},
		func(c *Cgroup) float64 { return float64(c.MemoryWorkingSet) })
	p.pods(r, family{"pod_swap_usage_bytes", "[ALPHA] Current amount of the pod swap usage in bytes. Reported only on non-windows systems", false},
		func(c *Cgroup) float64 { return float64(c.SwapBytes) })
	p.one("resource_scrape_error", "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise", oneIf(r.Incomplete))
	p.one("scrape_error", "[ALPHA] (Deprecated since 1.29.0) 1 if there was an error while getting container metrics, 0 otherwise", oneIf(r.Incomplete))
	return p.end()
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// swapLimit is how much swap a cgroup may have; false: as much as there is. On v1
// the kernel's limit is of memory and swap together.
func swapLimit(f *Figures) (float64, bool) {
	switch {
	case f.SwapMax == nil:
		return 0, false
	case f.CPUWeight != nil: // v2
		return float64(*f.SwapMax), true
	case f.MemoryMax == nil:
		return 0, false
	}
	return float64(*f.SwapMax - min(*f.SwapMax, *f.MemoryMax)), true
}

// identity are the labels of a pod in /metrics/resource.
func (p *Pod) identity() []*dto.LabelPair {
	return []*dto.LabelPair{label("namespace", p.Object.Namespace), label("pod", p.Object.Name)}
}

func (c *Container) identity(pod []*dto.LabelPair) []*dto.LabelPair {
	return append([]*dto.LabelPair{label("container", c.Name)}, pod...)
}

func (p *page) containers(r *Reading, f family, value func(*Container) (float64, bool)) {
	var all []*dto.Metric
	for i := range r.Pods {
		labels := r.Pods[i].identity()
		for j := range r.Pods[i].Containers {
			c := &r.Pods[i].Containers[j]
			if v, ok := value(c); ok {
				all = append(all, f.metric(v, c.At, c.identity(labels)))
			}
		}
	}
	p.write(f, all)
}

// startTimes have no time of their own, as kubelet's.
func (p *page) startTimes(r *Reading) {
	f := family{"container_start_time_seconds", "[STABLE] Start time of the container since unix epoch in seconds", false}
	var all []*dto.Metric
	for i := range r.Pods {
		labels := r.Pods[i].identity()
		for j := range r.Pods[i].Containers {
			c := &r.Pods[i].Containers[j]
			all = append(all, f.metric(float64(c.Started.UnixNano())/second, time.Time{}, c.identity(labels)))
		}
	}
	p.write(f, all)
}

func (p *page) pods(r *Reading, f family, value func(*Cgroup) float64) {
	var all []*dto.Metric
	for i := range r.Pods {
		if c := r.Pods[i].Cgroup; c != nil {
			all = append(all, f.metric(value(c), c.At, r.Pods[i].identity()))
		}
	}
	p.write(f, all)
}

func (p *page) node(r *Reading, f family, v float64) {
	p.write(f, []*dto.Metric{f.metric(v, r.Node.At, nil)})
}
