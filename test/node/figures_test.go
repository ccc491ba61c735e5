package node

import (
	"bytes"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// TestFigures: a node that stands alone tells at its socket what its pods use, also
// while containerd hangs: what the kernel counts needs nobody else.
func TestFigures(t *testing.T) {
	n := newRowsNode(t, bed.AgentOptions{})
	n.write(t, "used", spec("", "image: "+image.Shell+"\ncommand: [sh, -c, 'x=$(yes | head -c 5000000); touch /full; while :; do sleep 1000; done']\n"+
		"readinessProbe: {exec: {command: [ls, /full]}, periodSeconds: 1}"))
	n.pod(t, "used", "ready", isReady)
	n.tellsOf(t, "used-node")
	read := func() int64 {
		return n.page(t, "/metrics/resource")["node_cpu_usage_seconds_total"].Metric[0].GetTimestampMs()
	}
	must(t, n.b.Stop())
	defer func() { must(t, n.b.Cont()) }()
	before := read()
	n.until(t, "a reading with containerd hung", func() bool { return read() > before })
	n.tellsOf(t, "used-node")
}

// tellsOf holds what the pages say of a pod of one container that has 5 MB.
func (n *rowsNode) tellsOf(t *testing.T, name string) {
	t.Helper()
	resource := n.page(t, "/metrics/resource")
	for family, least := range map[string]float64{"container_memory_working_set_bytes": 5e6, "container_cpu_usage_seconds_total": 1e-6, "pod_memory_working_set_bytes": 5e6, "pod_cpu_usage_seconds_total": 1e-6} {
		if got := ofPod(resource[family], name); got < least || got > 1e9 {
			t.Errorf("%s of the pod is %v", family, got)
		}
	}
	if m := resource["node_memory_working_set_bytes"]; m == nil || figure(m.Metric[0]) < 5e6 {
		t.Errorf("the node's memory is %v", m)
	}
	cadvisor := n.page(t, "/metrics/cadvisor")
	if got := ofPod(cadvisor["container_network_receive_packets_total"], name); got < 0 {
		t.Errorf("of the pod's network is told %v", cadvisor["container_network_receive_packets_total"])
	}
	if got := n.page(t, "/metrics")["kubelet_running_pods"]; got == nil || figure(got.Metric[0]) != 1 {
		t.Errorf("running pods are %v", got)
	}
}

// page reads a page of figures as a scraper does.
func (n *rowsNode) page(t *testing.T, path string) map[string]*dto.MetricFamily {
	t.Helper()
	text, err := n.a.Get(n.ctx, path)
	must(t, err)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	all, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	must(t, err)
	return all
}

// ofPod is a pod's figure; -1: there is none.
func ofPod(f *dto.MetricFamily, name string) float64 {
	for _, m := range f.GetMetric() {
		for _, l := range m.Label {
			if l.GetName() == "pod" && l.GetValue() == name {
				return figure(m)
			}
		}
	}
	return -1
}

func figure(m *dto.Metric) float64 { return m.GetCounter().GetValue() + m.GetGauge().GetValue() }
