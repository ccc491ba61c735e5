package cluster_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
	"nodeagent/test/cluster"
	"nodeagent/test/image"
)

// node is a daemon that is a node of a cluster, for the tests of this file.
type node struct {
	*bed.AgentProcess
	t   *testing.T
	ctx context.Context
	bed *bed.Bed
	c   *cluster.Cluster
	by  firewall // of a test of services
}

// newNode brings a control plane and a daemon up, which is its only node.
func newNode(t *testing.T) *node {
	t.Helper()
	n := newControlPlane(t)
	file, err := n.c.Node("node")
	if err != nil {
		t.Fatal(err)
	}
	n.AgentProcess = bed.Agent(t, n.bed, bed.AgentOptions{Kubelet: n.authentication() + nodeConfig, Args: []string{"--kubeconfig", file}})
	return n
}

// registered waits until there is a Node, and it is Ready: kubectl waits for a condition
// only of what is there.
func (n *node) registered() {
	n.t.Helper()
	n.kubectl("wait", "--for=create", "node/node", "--timeout=60s")
	n.kubectl("wait", ready, "node/node", "--timeout=60s")
}

// nodeConfig has a lease that is renewed while a test looks, and keeps something back
// from pods.
const nodeConfig = `nodeLeaseDurationSeconds: 8
systemReserved: {memory: 64Mi}
kubeReserved: {cpu: 100m, memory: 32Mi}
enableSystemLogQuery: true
`

// authentication lets the API server in.
func (n *node) authentication() string {
	return fmt.Sprintf("authentication: {x509: {clientCAFile: %q}}\n", n.c.CA())
}

// newControlPlane is a cluster that has no node yet.
func newControlPlane(t *testing.T) *node {
	t.Helper()
	return newControlPlaneOf(t, func(*bed.Bed) (o cluster.Options) { return })
}

// newControlPlaneOf is one that differs from the usual.
func newControlPlaneOf(t *testing.T, options func(*bed.Bed) cluster.Options) *node {
	t.Helper()
	need.Have(t, need.Root)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	b := bed.Containerd(t, bed.Options{Variant: bed.Variant{Race: raced}})
	if err := b.Import(ctx); err != nil {
		t.Fatal(err)
	}
	o := options(b)
	o.Talk = os.Stderr
	return &node{t: t, ctx: ctx, bed: b, c: cluster.Up(t, b, o)}
}

// kubectl runs it and returns what it printed; the test ends where it fails.
func (n *node) kubectl(args ...string) string {
	n.t.Helper()
	return kubectl(n.t, n.ctx, n.c, args...)
}

func (n *node) apply(text string) {
	n.t.Helper()
	if err := n.c.Apply(n.ctx, text); err != nil {
		n.t.Fatal(err)
	}
}

// jsonpath reads something of an object.
func (n *node) jsonpath(path string, args ...string) string {
	n.t.Helper()
	return n.kubectl(append(append([]string{"get"}, args...), "-o", "jsonpath="+path)...)
}

const ready = "--for=condition=Ready"

// restart kills the daemon in the middle of whatever it does and starts another.
func (n *node) restart() {
	n.t.Helper()
	if err := n.Restart(n.ctx); err != nil {
		n.t.Fatal(err)
	}
}

// TestNode is a daemon with a kubeconfig as a node of a real cluster.
func TestNode(t *testing.T) {
	n := newNode(t)
	begun := time.Now()
	n.registered()
	t.Logf("the node was Ready %.2f s after the daemon", time.Since(begun).Seconds())
	t.Run("object", func(t *testing.T) { n.in(t).object() })
	t.Run("features", func(t *testing.T) { n.in(t).features() })
	t.Run("deployment", func(t *testing.T) { n.in(t).deployment() })
	t.Run("job", func(t *testing.T) { n.in(t).job() })
	t.Run("objects", func(t *testing.T) { n.in(t).objects() })
	t.Run("streams", func(t *testing.T) { n.in(t).streams() })
	t.Run("node logs", func(t *testing.T) { n.in(t).nodeLogs() })
	t.Run("mirror", func(t *testing.T) { n.in(t).mirror() })
	t.Run("refused", func(t *testing.T) { n.in(t).refused() })
	t.Run("unbuilt", func(t *testing.T) { n.in(t).unbuilt() })
	t.Run("reserved", func(t *testing.T) { n.in(t).reserved() })
	t.Run("daemon set", func(t *testing.T) { n.in(t).daemonSet() })
	t.Run("stateful set", func(t *testing.T) { n.in(t).statefulSet() })
	t.Run("cron job", func(t *testing.T) { n.in(t).cronJob() })
	t.Run("run", func(t *testing.T) { n.in(t).run() })
	t.Run("follow", func(t *testing.T) { n.in(t).follow() })
	t.Run("terminal", func(t *testing.T) { n.in(t).terminal() })
	t.Run("copy", func(t *testing.T) { n.in(t).copyFiles() })
	t.Run("delete", func(t *testing.T) { n.in(t).deleted() })
	t.Run("hostile clients", func(t *testing.T) { n.in(t).hostileClients() })
	t.Run("explained dead", func(t *testing.T) { n.in(t).explainedDead() })
	t.Run("alone", func(t *testing.T) { n.in(t).alone() })
	t.Run("drain", func(t *testing.T) { n.in(t).drain() })
}

// in is the same node for a part of the test.
func (n *node) in(t *testing.T) *node {
	part := *n
	part.t = t
	return &part
}

// object: the Node says what the scheduler and people look for, and its lease is
// renewed.
func (n *node) object() {
	for path, want := range map[string]string{
		`{.status.addresses[?(@.type=="InternalIP")].address}`: bed.NodeIP,
		`{.metadata.labels.kubernetes\.io/hostname}`:           "node",
		`{.status.capacity.pods}`:                              "110",
		`{.status.features.supplementalGroupsPolicy}`:          "true",
		`{.status.declaredFeatures}`:                           `["ExtendWebSocketsToKubelet","RestartAllContainersOnContainerExits"]`,
	} {
		if got := n.jsonpath(path, "node", "node"); got != want {
			n.t.Errorf("the node's %s is %q, want %q", path, got, want)
		}
	}
	if v := n.jsonpath("{.status.nodeInfo.kubeletVersion}", "node", "node"); !strings.HasPrefix(v, "v"+cluster.KubernetesVersion+"+nodeagent.") {
		n.t.Errorf("the node's version is %q", v)
	}
	n.kubectl("wait", `--for=jsonpath={.status.images[0].names[0]}`, "node/node", "--timeout=30s")
	recursive := !errors.Is(unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{}), unix.ENOSYS)
	if got, want := n.jsonpath("{.status.runtimeHandlers[?(@.name==\"\")].features.recursiveReadOnlyMounts}", "node", "node"), fmt.Sprint(recursive); got != want {
		n.t.Errorf("the node's recursively read-only mounts: %q, want %s", got, want)
	}
	if v := n.jsonpath("{.status.nodeInfo.containerRuntimeVersion}", "node", "node"); v != "containerd://"+bed.ContainerdVersion {
		n.t.Errorf("the node's runtime is %q, want containerd://%s", v, bed.ContainerdVersion)
	}
	before := n.jsonpath("{.spec.renewTime}", "lease", "-n", "kube-node-lease", "node")
	if before == "" {
		n.t.Fatal("the lease was never renewed")
	}
	for deadline := time.Now().Add(40 * time.Second); n.jsonpath("{.spec.renewTime}", "lease", "-n", "kube-node-lease", "node") == before; {
		if time.Now().After(deadline) {
			n.t.Fatal("the lease is not renewed")
		}
	}
}

// features: pods that ask for what the Node says that it can are scheduled, and taken.
func (n *node) features() {
	n.apply(sleeper("strict", "  securityContext: {runAsUser: 1000, runAsGroup: 1000, supplementalGroups: [5000], supplementalGroupsPolicy: Strict}\n"))
	n.apply(strings.Replace(sleeper("whole", "  restartPolicy: Never\n"), "image:",
		"restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}], restartPolicy: Never, image:", 1))
	n.kubectl("wait", ready, "pod/strict", "pod/whole", "--timeout=60s")
	if got := n.kubectl("exec", "strict", "--", "/bin/sh", "-c", "grep ^Groups: /proc/self/status"); strings.Join(strings.Fields(got), " ") != "Groups: 1000 5000" {
		n.t.Errorf("the pod's groups are %q", got)
	}
	n.kubectl("delete", "pod", "strict", "whole", "--timeout=60s")
}

const deployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: c, image: ` + image.Shell + `, imagePullPolicy: Never, command: [/bin/sleep, "100000"]}
`

// deployment: the control plane's own controllers make pods here, with tokens; a
// daemon that is killed changes nothing of them, and deleting ends them to the last.
func (n *node) deployment() {
	begun := time.Now()
	n.apply(deployment)
	n.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
	n.t.Logf("two pods of a Deployment were available after %.2f s", time.Since(begun).Seconds())
	const ids = "{.items[*].status.containerStatuses[0].containerID} {.items[*].status.containerStatuses[0].restartCount} {.items[*].status.podIP}"
	before := n.jsonpath(ids, "pods", "-l", "app=web")
	n.restart()
	n.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
	if after := n.jsonpath(ids, "pods", "-l", "app=web"); after != before {
		n.t.Errorf("after a kill of the daemon the pods are %s, before %s", after, before)
	}
	if got := n.jsonpath(`{.status.conditions[?(@.type=="Ready")].status}`, "node", "node"); got != "True" {
		n.t.Errorf("after a kill of the daemon the node is Ready=%s", got)
	}
	n.kubectl("delete", "deployment", "web")
	n.kubectl("wait", "--for=delete", "pods", "-l", "app=web", "--timeout=60s")
	if out, err := n.CLI(n.ctx, "pods", "-o", "name"); err != nil || strings.Contains(out, "web-") {
		n.t.Errorf("the daemon still has %q, %v", out, err)
	}
}

// job: a pod that comes to its end is counted.
func (n *node) job() {
	n.apply(`
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
      - {name: c, image: ` + image.Shell + `, imagePullPolicy: Never, command: [/bin/sh, -c, "exit 0"]}
`)
	n.kubectl("wait", "--for=condition=Complete", "job/once", "--timeout=60s")
	n.kubectl("delete", "job", "once")
	n.kubectl("wait", "--for=delete", "pods", "-l", "job-name=once", "--timeout=60s")
}

// objects: a pod has what ConfigMaps, Secrets and its account hold, and a change of
// a ConfigMap reaches it while it runs.
func (n *node) objects() {
	n.kubectl("create", "configmap", "words", "--from-literal=word=first")
	n.kubectl("create", "secret", "generic", "hidden", "--from-literal=word=secret")
	n.apply(`
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: ` + image.Shell + `
    imagePullPolicy: Never
    env: [{name: WORD, valueFrom: {secretKeyRef: {name: hidden, key: word}}}]
    command: [/bin/sh, -c, 'test "$WORD" = secret && test -s /var/run/secrets/kubernetes.io/serviceaccount/token && test -s /var/run/secrets/kubernetes.io/serviceaccount/ca.crt && test "$KUBERNETES_SERVICE_PORT" = 443 && exec sleep 100000']
    readinessProbe: {periodSeconds: 1, exec: {command: [grep, -q, second, /words/word]}}
    volumeMounts: [{name: words, mountPath: /words}]
  volumes: [{name: words, configMap: {name: words}}]
`)
	n.kubectl("wait", `--for=jsonpath={.status.phase}=Running`, "pod/reader", "--timeout=60s")
	n.kubectl("patch", "configmap", "words", "-p", `{"data":{"word":"second"}}`)
	n.kubectl("wait", ready, "pod/reader", "--timeout=60s")
	n.kubectl("delete", "pod", "reader", "--timeout=60s")
	n.kubectl("delete", "configmap/words", "secret/hidden")
}

// streams: kubectl's verbs that need the node API.
func (n *node) streams() {
	n.apply(`
apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: ` + image.Shell + `
    imagePullPolicy: Never
    stdin: true
    command: [/bin/sh, -c, 'echo first; while read line; do echo "read $line"; done; sleep 100000']
  - {name: web, image: ` + image.Shell + `, imagePullPolicy: Never, command: [/podtool, serve, "127.0.0.1:8080", forwarded]}
`)
	n.kubectl("wait", ready, "pod/talker", "--timeout=60s")
	if got := n.kubectl("logs", "talker", "-c", "c"); got != "first\n" {
		n.t.Errorf("logs are %q", got)
	}
	if got := n.kubectl("exec", "talker", "-c", "c", "--", "/bin/sh", "-c", "echo $((6*7))"); got != "42\n" {
		n.t.Errorf("exec says %q", got)
	}
	if _, err := n.c.Kubectl(n.ctx, "exec", "talker", "-c", "c", "--", "/bin/sh", "-c", "exit 7"); err == nil || !strings.Contains(err.Error(), "exit code 7") {
		n.t.Errorf("a command that fails is %v", err)
	}
	cmd := n.c.Command("exec", "-i", "talker", "-c", "c", "--", "cat")
	cmd.Stdin = strings.NewReader("there and back")
	if got, err := n.c.Finish(n.ctx, cmd); err != nil || got != "there and back" {
		n.t.Errorf("exec -i says %q, %v", got, err)
	}
	cmd = n.c.Command("attach", "-i", "talker", "-c", "c")
	cmd.Stdin = strings.NewReader("a line\n")
	if _, err := n.c.Finish(n.ctx, cmd); err != nil {
		n.t.Errorf("attach: %v", err)
	}
	for deadline := time.Now().Add(time.Minute); !strings.Contains(n.kubectl("logs", "talker", "-c", "c"), "read a line\n"); {
		if time.Now().After(deadline) {
			n.t.Fatal("what attach sent was never read")
		}
	}
	n.forward()
	n.notTranslated()
	n.kubectl("debug", "talker", "--image="+image.Shell, "--container=look", "--target=c", "--profile=general", "--", "/bin/sleep", "100000")
	n.kubectl("wait", "--for=jsonpath={.status.ephemeralContainerStatuses[0].state.running}", "pod/talker", "--timeout=60s")
	if got := n.kubectl("exec", "talker", "-c", "look", "--", "/bin/sh", "-c", "ps | grep -c 'while [r]ead'"); got != "1\n" {
		n.t.Errorf("a debug container sees %q of its target", got)
	}
	n.kubectl("delete", "pod", "talker", "--timeout=60s")
}

// notTranslated: what kubectl says over WebSockets reached the node as it was said.
func (n *node) notTranslated() {
	counts := n.kubectl("get", "--raw", "/metrics")
	for _, verb := range []string{"exec", "attach", "portforward"} {
		if !strings.Contains(counts, `apiserver_websocket_streaming_requests_total{proxy_type="proxied_to_kubelet",subresource="`+verb+`"}`) {
			n.t.Errorf("the API server has not handed on any %s", verb)
		}
	}
	if strings.Contains(counts, `proxy_type="translated_at_apiserver"`) {
		n.t.Error("the API server has translated streams for this node")
	}
}

// forward reaches a port that only the pod's own loopback has.
func (n *node) forward() {
	cmd := n.c.Command("port-forward", "--address=127.0.0.1", "pod/talker", "18080:8080")
	out, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := n.bed.Start(cmd); err != nil {
		n.t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.HasPrefix(line, "Forwarding from") {
		n.t.Fatalf("port-forward says %q, %v", line, err)
	}
	client := http.Client{Transport: &http.Transport{DialContext: n.bed.Connect}, Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://127.0.0.1:18080/")
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(text), "forwarded") {
		n.t.Errorf("through port-forward comes %q, %v", text, err)
	}
}

// mirror: a static pod is shown at the API server; what happens to its picture
// there never reaches it.
func (n *node) mirror() {
	manifest := `
apiVersion: v1
kind: Pod
metadata: {name: still}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: ` + image.Shell + `, imagePullPolicy: Never, command: [/bin/sleep, "100000"]}]
`
	if err := n.WriteManifest("still", manifest); err != nil {
		n.t.Fatal(err)
	}
	n.kubectl("wait", "--for=create", "pod/still-node", "--timeout=60s")
	n.kubectl("wait", ready, "pod/still-node", "--timeout=60s")
	id, uid := n.jsonpath("{.status.containerStatuses[0].containerID}", "pod", "still-node"), n.jsonpath("{.metadata.uid}", "pod", "still-node")
	n.kubectl("delete", "pod", "still-node", "--wait=false")
	n.kubectl("wait", "--for=create", "pod/still-node", "--timeout=60s")
	for deadline := time.Now().Add(time.Minute); ; {
		got, err := n.c.Kubectl(n.ctx, "get", "pod", "still-node", "--ignore-not-found", "-o", "jsonpath={.metadata.uid} {.status.containerStatuses[0].containerID}")
		now, container, _ := strings.Cut(got, " ")
		if err == nil && now != uid && container == id {
			break
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("after it was deleted the mirror is %q, %v; it was %s of %s", got, err, uid, id)
		}
	}
	if err := n.RemoveManifest("still"); err != nil {
		n.t.Fatal(err)
	}
	n.kubectl("wait", "--for=delete", "pod/still-node", "--timeout=60s")
}

// refused: a pod that is bound here although it does not fit fails with kubelet's
// reason; one whose label came a moment ago is not refused.
func (n *node) refused() {
	bound := func(name, spec string) string {
		return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  nodeName: node
  terminationGracePeriodSeconds: 1
%s
  containers: [{name: c, image: %s, imagePullPolicy: Never, command: [/bin/sleep, "100000"], resources: {requests: {cpu: %q}}}]
`, name, spec, image.Shell, map[bool]string{true: "1000", false: "1m"}[name == "big"])
	}
	n.apply(bound("big", ""))
	n.apply(bound("elsewhere", "  nodeSelector: {color: red}"))
	for name, reason := range map[string]string{"big": "OutOfcpu", "elsewhere": "NodeAffinity"} {
		n.kubectl("wait", `--for=jsonpath={.status.phase}=Failed`, "pod/"+name, "--timeout=60s")
		if got := n.jsonpath("{.status.reason}", "pod", name); got != reason {
			n.t.Errorf("pod %s was refused for %q, want %s", name, got, reason)
		}
	}
	n.kubectl("label", "node", "node", "color=blue")
	n.apply(bound("here", "  nodeSelector: {color: blue}"))
	n.kubectl("wait", ready, "pod/here", "--timeout=60s")
	n.restart() // what was decided stays decided
	n.kubectl("label", "node", "node", "color-")
	n.kubectl("wait", ready, "pod/here", "--timeout=60s")
	if got := n.jsonpath("{.status.phase}", "pod", "big"); got != "Failed" {
		n.t.Errorf("after a restart the pod that was refused is %s", got)
	}
	n.kubectl("delete", "pod", "big", "elsewhere", "here", "--timeout=60s")
}
