package stats

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// sourceKey is the annotation that says where a pod came from.
const sourceKey = "kubernetes.io/config.source"

// WriteDaemon writes what kubelet serves at /metrics: what the daemon counts of
// itself, what there is of pods, and how full claims are.
func (m *Meter) WriteDaemon(ctx context.Context, w io.Writer) error {
	var own []*dto.MetricFamily
	if m.cfg.Daemon != nil {
		var err error
		if own, err = m.cfg.Daemon.Gather(); err != nil {
			return fmt.Errorf("gather what the daemon counts: %w", err)
		}
	}
	pods := m.cfg.Pods.Pods()
	volumes := m.cfg.Disk.Volumes(ctx, pods)
	p := newPage(w)
	for _, f := range own {
		if p.err == nil {
			_, p.err = expfmt.MetricFamilyToText(p.w, f)
		}
	}
	if m.cfg.Certificates != nil {
		p.certificates(m.cfg.Certificates())
	}
	p.one("kubelet_node_name", "[ALPHA] The node's name. The count is always 1.", 1, label("node", m.cfg.NodeName))
	p.podCounts(pods, m.cfg.Runtime)
	p.volumeCounts(pods, m.cfg.Runtime)
	p.claims(pods, volumes)
	return p.end()
}

// certificates tell how long those of the node are good for, and what their renewals
// met.
func (p *page) certificates(client, serving Certificate) {
	if !client.End.IsZero() {
		p.one("kubelet_certificate_manager_client_ttl_seconds", "[ALPHA] Gauge of the TTL (time-to-live) of the Kubelet's client certificate. The value is in seconds until certificate expiry (negative if already expired).", time.Until(client.End).Seconds())
	}
	if !serving.End.IsZero() {
		p.one("kubelet_certificate_manager_server_ttl_seconds", "[ALPHA] Gauge of the TTL (time-to-live) of the Kubelet's serving certificate. The value is in seconds until certificate expiry (negative if already expired).", time.Until(serving.End).Seconds())
	}
	const renewals = "[ALPHA] Counter of certificate renewal errors."
	p.count("kubelet_certificate_manager_client_expiration_renew_errors", renewals, float64(client.Errors))
	p.count("kubelet_server_expiration_renew_errors", renewals, float64(serving.Errors))
}

// podCounts count pods by where they come from and containers by their state.
func (p *page) podCounts(pods []*corev1.Pod, runtime Runtime) {
	desired, active := map[string]float64{"": 0, "true": 0}, map[string]float64{"": 0, "true": 0}
	containers := map[string]float64{"created": 0, "exited": 0, "running": 0}
	running := 0.0
	for _, one := range pods {
		static := ""
		if source := one.Annotations[sourceKey]; source != "" && source != "api" {
			static = "true"
		}
		desired[static]++
		if one.Status.Phase != corev1.PodSucceeded && one.Status.Phase != corev1.PodFailed {
			active[static]++
		}
		state := runtime.Observe(one.UID)
		for _, s := range state.Sandboxes {
			if s.State == pod.SandboxReady {
				running++
				break
			}
		}
		for _, c := range state.Containers {
			switch c.State {
			case pod.ContainerRunning:
				containers["running"]++
			case pod.ContainerExited:
				containers["exited"]++
			case pod.ContainerCreated:
				containers["created"]++
			}
		}
	}
	p.counted("kubelet_active_pods", "[ALPHA] The number of pods the kubelet considers active and which are being considered when admitting new pods. static is true if the pod is not from the apiserver.", "static", active)
	p.counted("kubelet_desired_pods", "[ALPHA] The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.", "static", desired)
	p.counted("kubelet_running_containers", "[ALPHA] Number of containers currently running", "container_state", containers)
	p.one("kubelet_running_pods", "[ALPHA] Number of pods that have a running pod sandbox", running)
}

// volumeCounts count volumes by kind, as they are wanted and as they are there: of pods
// that have a container, for which they had to be set up.
func (p *page) volumeCounts(pods []*corev1.Pod, runtime Runtime) {
	type kind struct{ plugin, state string }
	counts := map[kind]float64{}
	for _, one := range pods {
		there := len(runtime.Observe(one.UID).Containers) > 0
		for i := range one.Spec.Volumes {
			plugin := pod.VolumePlugin(&one.Spec.Volumes[i])
			if plugin == "" {
				continue
			}
			counts[kind{plugin, "desired_state_of_world"}]++
			if there {
				counts[kind{plugin, "actual_state_of_world"}]++
			}
		}
	}
	f := family{name: "volume_manager_total_volumes", help: "[ALPHA] Number of volumes in Volume Manager"}
	var all []*dto.Metric
	for _, k := range slices.SortedFunc(maps.Keys(counts), func(a, b kind) int {
		return cmp.Or(cmp.Compare(a.plugin, b.plugin), cmp.Compare(a.state, b.state))
	}) {
		all = append(all, f.metric(counts[k], time.Time{}, []*dto.LabelPair{label("plugin_name", k.plugin), label("state", k.state)}))
	}
	p.write(f, all)
}

func (p *page) counted(name, help, by string, counts map[string]float64) {
	f := family{name: name, help: help}
	var all []*dto.Metric
	for _, value := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, f.metric(counts[value], time.Time{}, []*dto.LabelPair{label(by, value)}))
	}
	p.write(f, all)
}

// claims tell how full each claim is, once for all pods that use it.
func (p *page) claims(pods []*corev1.Pod, volumes map[types.UID][]Volume) {
	type claim struct{ namespace, name string }
	found := map[claim]*Volume{}
	for _, one := range pods {
		all := volumes[one.UID]
		for i := range all {
			if v := &all[i]; v.Claim != "" && v.Own {
				found[claim{one.Namespace, v.Claim}] = v
			}
		}
	}
	names := slices.SortedFunc(maps.Keys(found), func(a, b claim) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name))
	})
	for _, f := range []struct {
		family
		of func(*Volume) uint64
	}{
		{family{name: "kubelet_volume_stats_available_bytes", help: "[ALPHA] Number of available bytes in the volume"}, func(v *Volume) uint64 { return v.Available }},
		{family{name: "kubelet_volume_stats_capacity_bytes", help: "[ALPHA] Capacity in bytes of the volume"}, func(v *Volume) uint64 { return v.Capacity }},
		{family{name: "kubelet_volume_stats_inodes", help: "[ALPHA] Maximum number of inodes in the volume"}, func(v *Volume) uint64 { return v.Inodes }},
		{family{name: "kubelet_volume_stats_inodes_free", help: "[ALPHA] Number of free inodes in the volume"}, func(v *Volume) uint64 { return v.InodesFree }},
		{family{name: "kubelet_volume_stats_inodes_used", help: "[ALPHA] Number of used inodes in the volume"}, func(v *Volume) uint64 { return v.InodesUsed }},
		{family{name: "kubelet_volume_stats_used_bytes", help: "[ALPHA] Number of used bytes in the volume"}, func(v *Volume) uint64 { return v.Used }},
	} {
		var all []*dto.Metric
		for _, c := range names {
			all = append(all, f.metric(float64(f.of(found[c])), time.Time{}, []*dto.LabelPair{label("namespace", c.namespace), label("persistentvolumeclaim", c.name)}))
		}
		p.write(f.family, all)
	}
}
