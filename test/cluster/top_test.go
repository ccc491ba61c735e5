package cluster_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// TestTop is what the node and its pods use, as the control plane and those who watch
// over a cluster ask for it: metrics-server, and through it kubectl top; the summary;
// and the figures that dashboards are made of.
func TestTop(t *testing.T) {
	n := newNode(t)
	n.registered()
	n.apply(`
apiVersion: v1
kind: Pod
metadata: {name: two}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: busy, image: ` + image.Shell + `, imagePullPolicy: Never, command: [/bin/sh, -c, "x=$(yes | head -c 5000000); while :; do :; done"], resources: {limits: {cpu: 100m, memory: 64Mi}}}
  - name: calm
    image: ` + image.Shell + `
    imagePullPolicy: Never
    command: [/bin/sh, -c, "head -c 300000 /dev/zero > /written; head -c 500000 /dev/zero > /scratch/written; exec /podtool serve :8080 calm"]
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
    volumeMounts: [{name: scratch, mountPath: /scratch}]
  volumes: [{name: scratch, emptyDir: {}}]
`)
	n.apply(strings.Replace(sleeper("hosted", ""), "spec:", "spec:\n  hostNetwork: true", 1))
	n.kubectl("wait", ready, "pod/two", "pod/hosted", "--timeout=60s")
	n.visit("http://" + net.JoinHostPort(n.jsonpath("{.status.podIP}", "pod", "two"), "8080"))
	if _, err := n.c.MetricsServer(n.ctx); err != nil {
		t.Fatal(err)
	}
	n.kubectl("wait", "--for=condition=Available", "apiservice/v1beta1.metrics.k8s.io", "--timeout=60s")
	t.Run("kubectl", func(t *testing.T) { n.in(t).top() })
	t.Run("summary", func(t *testing.T) { n.in(t).summary() })
	t.Run("cadvisor", func(t *testing.T) { n.in(t).cadvisor() })
	t.Run("daemon", func(t *testing.T) { n.in(t).own() })
	t.Run("rights", func(t *testing.T) { n.in(t).figureRights() })
}

// visit has a pod receive and send something.
func (n *node) visit(url string) {
	n.t.Helper()
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DialContext: n.bed.Connect, DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		n.t.Fatal(err)
	}
	resp.Body.Close()
}

// top: kubectl's own words about every container; the busy one takes processors and
// memory.
func (n *node) top() {
	line := strings.Fields(n.kubectl("top", "node", "node", "--no-headers"))
	if len(line) != 5 || line[0] != "node" || line[1] == "0m" || line[3] == "0Mi" {
		n.t.Errorf("kubectl top node says %q", line)
	}
	found := map[string][]string{}
	for row := range strings.Lines(n.kubectl("top", "pod", "--containers", "--no-headers")) {
		if f := strings.Fields(row); len(f) == 4 {
			found[f[0]+"/"+f[1]] = f[2:]
		}
	}
	for _, name := range []string{"two/busy", "two/calm", "hosted/c"} {
		if len(found[name]) != 2 || name == "two/busy" && (found[name][0] == "0m" || found[name][1] == "0Mi") {
			n.t.Errorf("kubectl top pod says %v of %s, in all %v", found[name], name, found)
		}
	}
	n.t.Logf("node %v, pods %v", line, found)
}

// raw asks the node through the API server.
func (n *node) raw(path string) string {
	n.t.Helper()
	return n.kubectl("get", "--raw", "/api/v1/nodes/node/proxy"+path)
}

// counted is the summary in which disks are counted: an answer does not wait for long
// until they are.
func (n *node) counted() statsapi.Summary {
	n.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; bed.Pause(n.ctx, time.Second) {
		var s statsapi.Summary
		if err := json.Unmarshal([]byte(n.raw("/stats/summary")), &s); err != nil {
			n.t.Fatal(err)
		}
		for _, p := range s.Pods {
			scratch := slices.ContainsFunc(p.VolumeStats, func(v statsapi.VolumeStats) bool { return v.Name == "scratch" && v.UsedBytes != nil })
			layers := !slices.ContainsFunc(p.Containers, func(c statsapi.ContainerStats) bool { return c.Rootfs == nil || c.Rootfs.UsedBytes == nil })
			if p.PodRef.Name == "two" && scratch && layers {
				return s
			}
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("what pod two takes of the disk is not told: %+v", s.Pods)
		}
	}
}

// summary: the pod with all that it takes.
func (n *node) summary() {
	s := n.counted()
	if s.Node.NodeName != "node" || *s.Node.CPU.UsageCoreNanoSeconds == 0 || *s.Node.Fs.CapacityBytes == 0 || *s.Node.Runtime.ImageFs.CapacityBytes == 0 || *s.Node.Rlimit.MaxPID == 0 {
		n.t.Errorf("the node is %+v", s.Node)
	}
	pods := map[string]*statsapi.PodStats{}
	for i := range s.Pods {
		pods[s.Pods[i].PodRef.Name] = &s.Pods[i]
	}
	two := pods["two"]
	if two == nil || len(two.Containers) != 2 {
		n.t.Fatalf("of the pod is told %+v", two)
	}
	if two.Network.Name == "" || *two.Network.RxBytes == 0 || *two.Network.TxBytes == 0 || *two.ProcessStats.ProcessCount < 2 {
		n.t.Errorf("the pod's network is %+v, it has %d processes", two.Network, *two.ProcessStats.ProcessCount)
	}
	calm := two.Containers[1]
	if calm.Name != "calm" || *calm.Rootfs.UsedBytes < 300000 || *calm.Memory.WorkingSetBytes == 0 || *calm.Logs.CapacityBytes == 0 {
		n.t.Errorf("of container calm is told %+v, root %+v", calm, calm.Rootfs)
	}
	if busy := two.Containers[0]; *busy.Memory.AvailableBytes == 0 || *busy.Memory.AvailableBytes > 64<<20 || busy.CPU.UsageNanoCores == nil || *busy.CPU.UsageNanoCores == 0 {
		n.t.Errorf("of container busy is told %+v, %+v", busy.CPU, busy.Memory)
	}
	volumes := map[string]uint64{}
	for _, v := range two.VolumeStats {
		volumes[v.Name] = *v.UsedBytes
	}
	if volumes["scratch"] < 500000 || *two.EphemeralStorage.UsedBytes < 800000 {
		n.t.Errorf("the volumes take %v, all of the pod's disk %d", volumes, *two.EphemeralStorage.UsedBytes)
	}
	if hosted := pods["hosted"]; hosted == nil || hosted.Network != nil {
		n.t.Errorf("of a pod on the node's network is told %+v", hosted)
	}
	var brief statsapi.Summary
	if err := json.Unmarshal([]byte(n.raw("/stats/summary?only_cpu_and_memory=true")), &brief); err != nil || brief.Node.Fs != nil || len(brief.Pods) != len(s.Pods) {
		n.t.Errorf("the brief summary is %+v, %v", brief.Node, err)
	}
}

// scraped reads a page as Prometheus does: the figures by name and labels.
func (n *node) scraped(path string) map[string]map[string]float64 {
	n.t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	all, err := parser.TextToMetricFamilies(strings.NewReader(n.raw(path)))
	if err != nil {
		n.t.Fatal(err)
	}
	out := map[string]map[string]float64{}
	for name, f := range all {
		out[name] = map[string]float64{}
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				if v := l.GetName(); v != "id" && v != "name" {
					labels = append(labels, v+"="+l.GetValue())
				}
			}
			out[name][strings.Join(labels, ",")] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}

func (n *node) cadvisor() {
	got := n.scraped("/metrics/cadvisor")
	busy := "container=busy,image=" + image.Shell + ",namespace=default,pod=two"
	for name, labels := range map[string]string{
		"container_cpu_usage_seconds_total":         busy + ",cpu=total",
		"container_cpu_cfs_throttled_periods_total": busy,
		"container_memory_working_set_bytes":        busy,
		"container_spec_memory_limit_bytes":         busy,
		"container_network_receive_bytes_total":     "container=,image=,namespace=default,pod=two,interface=eth0",
		"container_start_time_seconds":              busy,
		"machine_scrape_error":                      "",
	} {
		if v, ok := got[name][labels]; !ok || v == 0 && name != "machine_scrape_error" {
			n.t.Errorf("%s{%s} is %v of %v", name, labels, v, got[name])
		}
	}
	if got["container_spec_memory_limit_bytes"][busy] != 64<<20 || got["container_scrape_error"][""] != 0 {
		n.t.Errorf("the limit is %v, errors %v", got["container_spec_memory_limit_bytes"][busy], got["container_scrape_error"])
	}
}

func (n *node) own() {
	got := n.scraped("/metrics")
	for name, labels := range map[string]string{
		"kubelet_node_name": "node=node", "kubelet_running_pods": "", "kubelet_running_containers": "container_state=running",
		"kubelet_runtime_operations_total": "operation_type=start_container", "process_resident_memory_bytes": "", "go_goroutines": "",
		"kubelet_certificate_manager_client_ttl_seconds": "", "kubelet_certificate_manager_server_ttl_seconds": "",
		"kubelet_pod_start_duration_seconds": "", "kubelet_pod_start_total_duration_seconds": "", "kubelet_pod_start_sli_duration_seconds": "",
		"kubelet_pod_worker_start_duration_seconds": "", "kubelet_pod_worker_duration_seconds": "operation_type=create",
		"kubelet_pleg_relist_duration_seconds": "", "kubelet_pleg_last_seen_seconds": "",
		"kubelet_started_pods_total": "", "kubelet_started_containers_total": "container_type=container",
		"kubelet_cgroup_manager_duration_seconds": "operation_type=create", "kubelet_cgroup_version": "",
		"volume_manager_total_volumes":           "plugin_name=kubernetes.io/projected,state=actual_state_of_world",
		"storage_operation_duration_seconds":     "migrated=false,operation_name=volume_mount,status=success,volume_plugin=kubernetes.io/projected",
		"kubelet_http_requests_total":            "long_running=false,method=GET,path=stats,server_type=readwrite",
		"kubelet_http_requests_duration_seconds": "long_running=false,method=GET,path=stats,server_type=readwrite",
		"kubelet_http_inflight_requests":         "long_running=false,method=GET,path=metrics,server_type=readwrite",
		"rest_client_requests_total":             "code=200,host=" + bed.NodeIP + ":6443,method=PATCH",
		"rest_client_request_duration_seconds":   "host=" + bed.NodeIP + ":6443,verb=GET",
	} {
		if got[name][labels] < 1 {
			n.t.Errorf("%s{%s} is %v", name, labels, got[name])
		}
	}
	for _, name := range []string{"kubelet_pod_start_duration_seconds", "kubelet_pod_start_total_duration_seconds", "kubelet_pod_start_sli_duration_seconds"} {
		if got[name][""] != 2 {
			n.t.Errorf("the starts of two pods are %s %v", name, got[name])
		}
	}
	if got["kubelet_running_containers"]["container_state=running"] != 3 || got["kubelet_running_pods"][""] != 2 {
		n.t.Errorf("two pods with three containers are %v and %v", got["kubelet_running_pods"], got["kubelet_running_containers"])
	}
}

// figureRights: metrics-server's account may read figures, and nothing else; nobody
// without a name may.
func (n *node) figureRights() {
	token, err := n.c.ServiceToken(n.ctx, "kube-system", "metrics-server")
	if err != nil {
		n.t.Fatal(err)
	}
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: n.bed.Connect, DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	ask := func(path, token string) (int, string) {
		req, err := http.NewRequestWithContext(context.WithoutCancel(n.ctx), http.MethodGet, "https://"+net.JoinHostPort(bed.NodeIP, "10250")+path, nil)
		if err != nil {
			n.t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := client.Do(req)
		if err != nil {
			n.t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			n.t.Fatal(err)
		}
		return resp.StatusCode, string(bytes.TrimSpace(text))
	}
	for path, want := range map[string]int{"/metrics/resource": 200, "/metrics/cadvisor": 200, "/metrics": 200, "/stats/summary": 403, "/pods": 403} {
		if code, text := ask(path, token); code != want {
			n.t.Errorf("metrics-server's account gets %d for %s, want %d: %.200s", code, path, want, text)
		}
		if code, _ := ask(path, ""); code != 401 {
			n.t.Errorf("a stranger gets %d for %s", code, path)
		}
	}
}
