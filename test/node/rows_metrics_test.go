package node

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/test/image"
)

// counted is a pod whose readiness probe fails twice and whose liveness probe
// never does, since it is asked only when the server listens; the container itself
// counts how often it was asked.
var counted = spec("", "image: "+image.Shell+"\ncommand: [/podtool, serve, ':8080']\n"+
	"readinessProbe: {exec: {command: [sh, -c, 'echo x >> /dev/shm/asked; [ $(wc -l < /dev/shm/asked) -gt 2 ]']}, periodSeconds: 1, timeoutSeconds: 30}\n"+
	"startupProbe: {httpGet: {port: 8080, path: /}, periodSeconds: 1, failureThreshold: 100}\n"+
	"livenessProbe: {httpGet: {port: 8080, path: /alive}, periodSeconds: 1, timeoutSeconds: 30}")

// probeCounts: what is counted of probes is on the page that kubelet has it on,
// under kubelet's names, and is what the container saw; it goes with the pod.
func (n *rowsNode) probeCounts(t *testing.T) {
	p := n.pod(t, "counted", "ready", isReady)
	asked := func() float64 {
		return float64(strings.Count(n.log(p, "app", 0), `GET "/alive"`))
	}
	n.until(t, "asking three times whether it lives", func() bool { return asked() > 2 })
	before := asked()
	m := n.metrics(t, "/metrics/probes")
	after := asked()
	labels := `{container="app",namespace="default",pod="counted-node",`
	ofPod := labels + `pod_uid="` + string(p.UID) + `",probe_type=`
	// The answer to the last question may not have been taken yet, nor its line have
	// come to the log.
	if got := m["prober_probe_total"+ofPod+`"Liveness",result="successful"}`]; got < before-1 || got > after+1 {
		t.Errorf("%v successful liveness probes are counted, the container saw %v and then %v", got, before, after)
	}
	if got := m["prober_probe_total"+ofPod+`"Readiness",result="failed"}`]; got != 2 {
		t.Errorf("%v failed readiness probes are counted, want 2", got)
	}
	if got := m["prober_probe_total"+ofPod+`"Startup",result="successful"}`]; got != 1 {
		t.Errorf("%v successful startup probes are counted, want 1", got)
	}
	for _, none := range []string{`"Liveness",result="failed"}`, `"Liveness",result="unknown"}`, `"Readiness",result="unknown"}`} {
		if got, there := m["prober_probe_total"+ofPod+none]; there {
			t.Errorf("%v are counted of %s", got, none)
		}
	}
	for _, kind := range []string{"Readiness", "Liveness"} {
		// As with kubelet, a time is taken of successes only.
		successful := m["prober_probe_total"+ofPod+`"`+kind+`",result="successful"}`]
		of := labels + `probe_type="` + kind + `"`
		count, most, sum := m["prober_probe_duration_seconds_count"+of+"}"], m["prober_probe_duration_seconds_bucket"+of+`,le="+Inf"}`], m["prober_probe_duration_seconds_sum"+of+"}"]
		if successful == 0 || count != successful || most != count || sum <= 0 {
			t.Errorf("of %v successful probes (%s) %v took a time, %v any, %v s together", successful, kind, count, most, sum)
		}
	}
	code := n.pod(t, "code", "running", inPhase(corev1.PodRunning))
	ofCode := `prober_probe_total{container="app",namespace="default",pod="code-node",pod_uid="` + string(code.UID) + `",probe_type="Readiness",result=`
	if m[ofCode+`"failed"}`] == 0 || m[ofCode+`"successful"}`] != 0 {
		t.Errorf("of a probe that always fails %v are counted as failed, %v as successful", m[ofCode+`"failed"}`], m[ofCode+`"successful"}`])
	}
	must(t, n.a.RemoveManifest("counted"))
	n.until(t, "no count of a pod that is gone", func() bool {
		for name := range n.metrics(t, "/metrics/probes") {
			if strings.Contains(name, `pod="counted-node"`) {
				return false
			}
		}
		return true
	})
}

// sample is a line of Prometheus' text format.
var sample = regexp.MustCompile(`^([a-z_]+\{.*\}) (\S+)$`)

// metrics are the samples of a page of the daemon's, by name and labels.
func (n *rowsNode) metrics(t *testing.T, page string) map[string]float64 {
	t.Helper()
	text, err := n.a.Get(n.ctx, page)
	must(t, err)
	all := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		part := sample.FindStringSubmatch(strings.TrimSpace(line))
		if part == nil {
			t.Fatalf("%s has the line %q", page, line)
		}
		value, err := strconv.ParseFloat(part[2], 64)
		must(t, err)
		all[part[1]] = value
	}
	return all
}
