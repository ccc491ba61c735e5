package node

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/test/bed"
	"nodeagent/test/image"
)

const imageHealth = "localhost/nodeagent/health:v1"

// newProbeNode is a node with an image that answers probes.
func newProbeNode(t *testing.T, a bed.AgentOptions) *rowsNode {
	n := newRowsNode(t, a)
	root, err := bed.ModuleRoot(n.ctx)
	must(t, err)
	tool, err := image.Healthtool(n.ctx, root)
	must(t, err)
	n.importImage(t, func(s *image.Spec) {
		s.Name = imageHealth
		s.Files["/healthtool"] = image.File{Mode: 0o755, Data: tool}
	}, true)
	return n
}

// healthy is a pod that answers probes; it becomes healthy in one respect when a
// file of that name is put into its /dev/shm.
func healthy(ofPod, probes string) string {
	return spec(ofPod, "image: "+imageHealth+"\ncommand: [/healthtool, ':8080', ':8443']\nports: [{name: web, containerPort: 8080}]\n"+probes)
}

// put makes the pod healthy in a respect, and drop unhealthy.
func (n *rowsNode) put(t *testing.T, name, file string) {
	n.exec(t, name, "write", "/dev/shm/"+file, "x")
}

func (n *rowsNode) exec(t *testing.T, name string, args ...string) {
	t.Helper()
	out, err := n.a.CLI(n.ctx, append([]string{"exec", name + "-node", "--", "/podtool"}, args...)...)
	if err != nil {
		t.Fatalf("exec in %s: %v\n%s", name, err, out)
	}
}

// app is the first container's status.
func app(p *corev1.Pod) corev1.ContainerStatus {
	if p == nil || len(p.Status.ContainerStatuses) == 0 {
		return corev1.ContainerStatus{}
	}
	return p.Status.ContainerStatuses[0]
}

func isReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && app(p).Ready
		}
	}
	return false
}

func notReady(p *corev1.Pod) bool { return app(p).State.Running != nil && !isReady(p) }

// readinessPods are pods whose readiness follows a file in their /dev/shm, by
// name, or is fixed. A busy machine alone makes none of them fail.
var readinessPods = map[string]string{
	"exec":     "readinessProbe: {exec: {command: [/podtool, cat, $(DIR)/exec]}, periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 1}\nenv: [{name: DIR, value: /dev/shm}]",
	"http":     "readinessProbe: {httpGet: {port: web, path: /file/http}, periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 1}",
	"https":    "readinessProbe: {httpGet: {port: 8443, path: /file/https, scheme: HTTPS}, periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 1}",
	"grpc":     "readinessProbe: {grpc: {port: 8080, service: One}, periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 1}",
	"redirect": "readinessProbe: {httpGet: {port: web, path: '/to/x?url=/file/redirect'}, periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 1}",
	"crossed":  "readinessProbe: {httpGet: {port: web, path: '/to/x?url=https:%2F%2F%5Bfd00::1%5D:1/'}, periodSeconds: 1, timeoutSeconds: 30}",
	"headers":  "readinessProbe: {httpGet: {port: web, path: '/headers?user-agent=kube-probe%2F1.36&accept=*%2F*&host=example.org&x-one=1&connection=close', httpHeaders: [{name: Host, value: example.org}, {name: x-one, value: '1'}]}, periodSeconds: 1, timeoutSeconds: 30}",
	"flood":    "readinessProbe: {httpGet: {port: web, path: /flood}, periodSeconds: 1, timeoutSeconds: 30}",
	"tcp":      "readinessProbe: {tcpSocket: {port: web}, periodSeconds: 1, timeoutSeconds: 30}",
	"plain":    "readinessProbe: {grpc: {port: 8080}, periodSeconds: 1, timeoutSeconds: 30}",
}

// neverReady are pods that do not become ready, and what is said of them.
var neverReady = map[string][2]string{
	"code":     {"readinessProbe: {httpGet: {port: web, path: /code/400}, periodSeconds: 1}", "Readiness probe failed: HTTP probe failed with statuscode: 400"},
	"refused":  {"readinessProbe: {tcpSocket: {port: 9}, periodSeconds: 1}", "connect: connection refused"},
	"hang":     {"readinessProbe: {httpGet: {port: web, path: /hang}, periodSeconds: 1}", "Client.Timeout exceeded while awaiting headers"},
	"noname":   {"readinessProbe: {httpGet: {port: nope}, periodSeconds: 1}", "Readiness probe errored"},
	"execlong": {"readinessProbe: {exec: {command: [/podtool, sleep, forever]}, periodSeconds: 1}", `command timed out: \"/podtool sleep forever\" timed out after 1s`},
	// Its child holds the output, and says no more of the container than its end did.
	"held":    {"readinessProbe: {exec: {command: [/bin/sh, -c, 'sleep 1000 & exit 1']}, periodSeconds: 1}", "Readiness probe failed: "},
	"noexec":  {"readinessProbe: {exec: {command: [/nope]}, periodSeconds: 1}", "Readiness probe errored"},
	"unknown": {"readinessProbe: {grpc: {port: 8080, service: unknown}, periodSeconds: 1}", "code = NotFound"},
	"notgrpc": {"readinessProbe: {grpc: {port: 8443}, periodSeconds: 1}", "Readiness probe failed: "},
}

// TestProbes: each kind of probe asks a real container, and what it finds is what
// the pod's status shows and its worker does.
func TestProbes(t *testing.T) {
	n := newProbeNode(t, bed.AgentOptions{})
	before, err := n.b.Snapshot(n.ctx)
	must(t, err)
	for name, probe := range readinessPods {
		ofPod := ""
		if name == "tcp" {
			ofPod = "hostNetwork: true"
		}
		n.write(t, name, healthy(ofPod, probe))
	}
	for name, c := range neverReady {
		n.write(t, name, healthy("", c[0]))
	}
	n.write(t, "counted", counted)
	t.Run("readiness", n.readiness)
	t.Run("never ready", n.neverReady)
	t.Run("counts", n.probeCounts)
	t.Run("startup", n.startup)
	t.Run("liveness", n.liveness)
	t.Run("daemon killed", n.readyOverKill)
	must(t, n.a.RemoveManifests())
	ctx, cancel := context.WithTimeout(n.ctx, 3*rowLimit)
	defer cancel()
	if err := n.b.WaitSame(ctx, before); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(filepath.Join(n.a.RunDir(), "probes"))
	must(t, err)
	if len(left) > 0 {
		t.Errorf("verdicts on containers that are gone are left: %v", left)
	}
}

func (n *rowsNode) readiness(t *testing.T) {
	for _, name := range []string{"crossed", "headers", "flood", "tcp"} {
		n.pod(t, name, "ready", isReady)
	}
	files := map[string]string{"exec": "exec", "http": "http", "https": "https", "grpc": "grpc-one", "plain": "grpc-", "redirect": "redirect"}
	for name := range files {
		if p := n.pod(t, name, "running", inPhase(corev1.PodRunning)); isReady(p) {
			t.Errorf("pod %s is ready before its probe has succeeded", name)
		}
	}
	for name, file := range files {
		n.put(t, name, file)
	}
	for name := range files {
		n.pod(t, name, "ready", isReady)
	}
	n.exec(t, "http", "remove", "/dev/shm/http")
	p := n.pod(t, "http", "not ready", notReady)
	if s := app(p); s.RestartCount != 0 || s.Started == nil || !*s.Started {
		t.Errorf("a container that is not ready was restarted or has not started: %+v", s)
	}
	n.put(t, "http", "http")
	n.pod(t, "http", "ready again", isReady)
}

func (n *rowsNode) neverReady(t *testing.T) {
	for name, c := range neverReady {
		n.logged(t, name, c[1])
		if p := n.pod(t, name, "running", inPhase(corev1.PodRunning)); isReady(p) || app(p).RestartCount > 0 {
			t.Errorf("pod %s is %+v", name, app(p))
		}
	}
}

// logged waits until the daemon's log says the text of the pod.
func (n *rowsNode) logged(t *testing.T, name, text string) {
	t.Helper()
	for end := time.Now().Add(rowLimit); time.Now().Before(end); bed.Pause(n.ctx, 50*time.Millisecond) {
		raw, err := os.ReadFile(n.a.Log())
		must(t, err)
		for line := range strings.Lines(string(raw)) {
			if strings.Contains(line, "pod=default/"+name+"-node") && strings.Contains(line, text) {
				return
			}
		}
	}
	t.Errorf("the log does not say %q of pod %s", text, name)
}

// startup: the others wait for it, and a container that does not start in time is
// ended.
func (n *rowsNode) startup(t *testing.T) {
	n.write(t, "slow", healthy("", `startupProbe: {exec: {command: [/podtool, cat, /dev/shm/started]}, periodSeconds: 1, failureThreshold: 100}
readinessProbe: {httpGet: {port: web, path: /file/ready}, periodSeconds: 1}
livenessProbe: {exec: {command: [/podtool, cat, /dev/shm/live]}, periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 1}`))
	n.pod(t, "slow", "running", inPhase(corev1.PodRunning))
	n.put(t, "slow", "ready")
	bed.Pause(n.ctx, 2500*time.Millisecond) // more than two periods
	p := n.pod(t, "slow", "running", inPhase(corev1.PodRunning))
	if s := app(p); s.Ready || *s.Started || s.RestartCount > 0 {
		t.Fatalf("before its startup probe has succeeded: %+v", s)
	}
	n.put(t, "slow", "live")
	n.put(t, "slow", "started")
	p = n.pod(t, "slow", "ready", isReady)
	if s := app(p); !*s.Started || s.RestartCount > 0 {
		t.Errorf("after its startup probe has succeeded: %+v", s)
	}
	n.exec(t, "slow", "remove", "/dev/shm/live")
	n.pod(t, "slow", "restarted", func(p *corev1.Pod) bool { return app(p).RestartCount > 0 })
	n.write(t, "nostart", healthy("", "startupProbe: {httpGet: {port: web, path: /file/x}, periodSeconds: 1, failureThreshold: 2}"))
	p = n.pod(t, "nostart", "restarted", func(p *corev1.Pod) bool { return app(p).RestartCount > 0 })
	end := app(p).LastTerminationState.Terminated
	if end == nil || end.FinishedAt.Sub(end.StartedAt.Time) > 10*time.Second {
		t.Errorf("a container that does not start was ended late: %+v", app(p))
	}
}

// liveness: a container that is deaf to TERM is killed after the probe's own
// grace period, not the pod's, and asked anew after that.
func (n *rowsNode) liveness(t *testing.T) {
	n.write(t, "dead", "  terminationGracePeriodSeconds: 20\n"+strings.Replace(spec("", `command: [/podtool, deaf]
livenessProbe: {exec: {command: [/podtool, exit, '1']}, periodSeconds: 1, failureThreshold: 2, terminationGracePeriodSeconds: 3}`), "  terminationGracePeriodSeconds: 2\n", "", 1))
	p := n.pod(t, "dead", "restarted", func(p *corev1.Pod) bool { return app(p).RestartCount > 0 })
	end := app(p).LastTerminationState.Terminated
	if end == nil {
		end = app(p).State.Terminated
	}
	if end == nil || end.ExitCode != 137 {
		t.Fatalf("a container that ignores TERM ended with %+v", app(p))
	}
	if took := end.FinishedAt.Sub(end.StartedAt.Time); took < 4*time.Second || took > 15*time.Second {
		t.Errorf("it ended %s after its start, want two periods and the probe's 3 s of grace", took)
	}
	n.logged(t, "dead", "Liveness probe failed: ")
}

// readyOverKill: what was ready stays so over a kill of the daemon, without a
// moment in which it is shown as not ready.
func (n *rowsNode) readyOverKill(t *testing.T) {
	names := []string{"exec", "http", "grpc", "tcp"}
	for _, name := range names {
		n.pod(t, name, "ready", isReady)
	}
	must(t, n.a.Restart(n.ctx))
	seen := map[string]bool{}
	ctx, cancel := context.WithTimeout(n.ctx, rowLimit)
	defer cancel()
	err := n.a.WaitPods(ctx, func(pods map[string]*corev1.Pod) bool {
		for _, name := range names {
			p := pods["default/"+name+"-node"]
			if p == nil || app(p).State.Running == nil {
				continue
			}
			seen[name] = true
			if !isReady(p) || app(p).RestartCount > 0 {
				t.Errorf("pod %s is not ready after a kill of the daemon: %+v", name, app(p))
			}
		}
		return len(seen) == len(names)
	})
	must(t, err)
	n.exec(t, "http", "remove", "/dev/shm/http")
	n.pod(t, "http", "not ready", notReady)
}
