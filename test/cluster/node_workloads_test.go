package cluster_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"nodeagent/test/image"
)

// podTemplate is what each workload here runs, with a label.
func podTemplate(app, more string) string {
	return `
  selector: {matchLabels: {app: ` + app + `}}
  template:
    metadata: {labels: {app: ` + app + `}}
    spec:
      terminationGracePeriodSeconds: 1
` + more + `      containers:
      - name: c
        image: ` + image.Shell + `
        imagePullPolicy: Never
        command: [/bin/sh, -c, "trap 'exit 0' TERM; touch /tmp/up; while :; do sleep 1; done"]
        readinessProbe: {periodSeconds: 1, timeoutSeconds: 30, exec: {command: [stat, /tmp/up]}}
`
}

// daemonSet: one pod on this node, replaced when the template changes.
func (n *node) daemonSet() {
	n.apply("apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: each}\nspec:" + podTemplate("each", ""))
	n.kubectl("rollout", "status", "daemonset/each", "--timeout=60s")
	before := n.jsonpath("{.items[*].metadata.uid}", "pods", "-l", "app=each")
	n.kubectl("set", "env", "daemonset/each", "A=B")
	n.kubectl("rollout", "status", "daemonset/each", "--timeout=60s")
	if now := n.jsonpath("{.items[*].metadata.uid}", "pods", "-l", "app=each"); now == before {
		n.t.Error("after the rollout the pod is still the same")
	}
	if got := n.jsonpath("{.items[*].spec.containers[0].env[0].value} {.items[*].status.phase}", "pods", "-l", "app=each"); got != "B Running" {
		n.t.Errorf("after the rollout the pods are %q", got)
	}
	n.kubectl("delete", "daemonset", "each", "--timeout=60s")
	n.kubectl("wait", "--for=delete", "pods", "-l", "app=each", "--timeout=60s")
}

// statefulSet: pods have names and host names that stay, and come one after the other.
func (n *node) statefulSet() {
	n.apply("apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {clusterIP: None, selector: {app: db}, ports: [{port: 80}]}\n")
	n.apply("apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db}\nspec:\n  replicas: 3\n  serviceName: db" + podTemplate("db", ""))
	n.kubectl("rollout", "status", "statefulset/db", "--timeout=90s")
	for i := range 3 {
		name := fmt.Sprintf("db-%d", i)
		if got := n.kubectl("exec", name, "--", "hostname"); got != name+"\n" {
			n.t.Errorf("pod %s calls itself %q", name, got)
		}
		if i == 0 {
			continue
		}
		made := n.jsonpath("{.metadata.creationTimestamp}", "pod", name)
		earlier := n.jsonpath(`{.status.conditions[?(@.type=="Ready")].lastTransitionTime}`, "pod", fmt.Sprintf("db-%d", i-1))
		if made < earlier {
			n.t.Errorf("pod %s was made at %s, before the one before it was Ready at %s", name, made, earlier)
		}
	}
	before := n.jsonpath("{.metadata.uid}", "pod", "db-1")
	n.kubectl("delete", "pod", "db-1", "--timeout=60s")
	n.kubectl("wait", "--for=create", "pod/db-1", "--timeout=60s")
	n.kubectl("wait", ready, "pod/db-1", "--timeout=60s")
	if uid := n.jsonpath("{.metadata.uid}", "pod", "db-1"); uid == before {
		n.t.Error("the pod that was deleted is still the same")
	}
	if got := n.kubectl("exec", "db-1", "--", "hostname"); got != "db-1\n" {
		n.t.Errorf("made again it calls itself %q", got)
	}
	n.kubectl("scale", "statefulset", "db", "--replicas=0")
	n.kubectl("wait", "--for=delete", "pods", "-l", "app=db", "--timeout=60s")
	n.kubectl("delete", "statefulset/db", "service/db")
}

// unbuilt: pods that ask for what the node does not give them wait and say for what,
// also when the daemon ends, and their ReplicaSet makes no others; they give way to
// those of a template without it.
func (n *node) unbuilt() {
	deployment := func(volume string) {
		n.apply("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: disk}\nspec:" + podTemplate("disk", "      volumes: [{name: v, "+volume+"}]\n"))
	}
	const waits = `--for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=UnsupportedField`
	deployment("nfs: {server: 127.0.0.1, path: /}")
	n.kubectl("wait", "--for=jsonpath={.status.replicas}=1", "deployment/disk", "--timeout=60s") // those that were made, not those that are wanted
	n.kubectl("wait", waits, "pods", "-l", "app=disk", "--timeout=60s")
	n.restart()
	n.kubectl("scale", "deployment/disk", "--replicas=2")
	n.kubectl("wait", "--for=jsonpath={.status.replicas}=2", "deployment/disk", "--timeout=60s")
	n.kubectl("wait", waits, "pods", "-l", "app=disk", "--timeout=60s")
	if got := n.jsonpath("{.items[*].status.phase} {.items[*].status.reason}", "pods", "-l", "app=disk"); got != "Pending Pending UnsupportedField UnsupportedField" {
		n.t.Errorf("pods that ask for what is not built are %q", got)
	}
	if got := n.jsonpath("{.items[*].message}", "events", "--field-selector", "reason=UnsupportedField"); !strings.Contains(got, "spec.volumes[0].nfs") {
		n.t.Errorf("the events say %q of it", got)
	}
	deployment("emptyDir: {sizeLimit: 1Mi}")
	n.kubectl("rollout", "status", "deployment/disk", "--timeout=90s")
	n.kubectl("delete", "deployment", "disk", "--timeout=60s")
	n.kubectl("wait", "--for=delete", "pods", "-l", "app=disk", "--timeout=60s")
}

// reserved: what nodeConfig keeps back is told to the scheduler, with the threshold of
// eviction, and the kernel keeps it, without.
func (n *node) reserved() {
	var have corev1.NodeStatus
	if err := json.Unmarshal([]byte(n.jsonpath("{.status}", "node", "node")), &have); err != nil {
		n.t.Fatal(err)
	}
	capacity := have.Capacity.Memory().Value()
	told := capacity - have.Allocatable.Memory().Value()
	for name, pages := range have.Capacity {
		if strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
			told -= pages.Value()
		}
	}
	if told != (64+32+100)<<20 {
		n.t.Errorf("%d bytes of memory are kept back from the scheduler, want 196 MiB", told)
	}
	cpu := have.Capacity.Cpu().DeepCopy()
	if cpu.Sub(*have.Allocatable.Cpu()); cpu.Cmp(resource.MustParse("100m")) != 0 {
		n.t.Errorf("%s of the CPU are kept back from the scheduler, want 100m", cpu.String())
	}
	limit := ""
	for _, file := range []string{"memory/*/kubepods/memory.limit_in_bytes", "*/kubepods/memory.max"} {
		file = strings.Replace(file, "*", strings.Trim(n.bed.CgroupRoot(), "/"), 1)
		if text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", file)); err == nil {
			limit = strings.TrimSpace(string(text))
		}
	}
	page := int64(os.Getpagesize())
	if want := (capacity - (64+32)<<20) / page * page; limit != strconv.FormatInt(want, 10) {
		n.t.Errorf("all pods together may use %s bytes, want %d", limit, want)
	}
}

// cronJob: the schedule makes jobs, and their pods come to their ends.
func (n *node) cronJob() {
	n.apply(`
apiVersion: batch/v1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: "* * * * *"
  jobTemplate:
    metadata: {labels: {app: tick}}
    spec:
      template:
        metadata: {labels: {app: tick}}
        spec:
          restartPolicy: OnFailure
          containers:
          - {name: c, image: ` + image.Shell + `, imagePullPolicy: Never, command: [/bin/echo, tick]}
`)
	n.kubectl("wait", "--for=jsonpath={.status.lastSuccessfulTime}", "cronjob/tick", "--timeout=180s")
	if got := n.kubectl("logs", "-l", "app=tick"); !strings.HasPrefix(got, "tick\n") {
		n.t.Errorf("what the schedule ran says %q", got)
	}
	n.kubectl("delete", "cronjob", "tick")
	n.kubectl("wait", "--for=delete", "pods", "-l", "app=tick", "--timeout=60s")
}

// cordon returns when the scheduler knows that the node takes no more pods. It hears of
// nodes and of pods by two watches: a pod that comes at once may be bound there all the same.
func (n *node) cordon() {
	n.kubectl("cordon", "node")
	const scheduled = `.status.conditions[?(@.type=="PodScheduled")]`
	for knows := false; !knows; {
		n.apply(`
apiVersion: v1
kind: Pod
metadata: {name: judged}
spec:
  containers:
  - {name: c, image: ` + image.Shell + `, imagePullPolicy: Never, resources: {requests: {cpu: "1000"}}}
`)
		n.kubectl("wait", "--for=jsonpath={"+scheduled+".reason}=Unschedulable", "pod/judged", "--timeout=60s")
		knows = strings.Contains(n.jsonpath("{"+scheduled+".message}", "pod", "judged"), "were unschedulable")
		n.kubectl("delete", "pod", "judged")
	}
}

// drain: what is drained goes but for what belongs to the node; afterwards pods come
// back.
func (n *node) drain() {
	if err := n.WriteManifest("stays", sleeper("stays", "")); err != nil {
		n.t.Fatal(err)
	}
	n.apply("apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: each}\nspec:" + podTemplate("each", ""))
	n.apply("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 2" + podTemplate("web", ""))
	n.kubectl("rollout", "status", "daemonset/each", "--timeout=60s")
	n.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
	n.kubectl("wait", "--for=create", "pod/stays-node", "--timeout=60s")
	n.kubectl("wait", ready, "pod/stays-node", "--timeout=60s")
	const ids = "{.items[*].status.containerStatuses[0].containerID}"
	each, stays := n.jsonpath(ids, "pods", "-l", "app=each"), n.jsonpath("{.status.containerStatuses[0].containerID}", "pod", "stays-node")
	n.cordon()
	n.kubectl("drain", "node", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=90s")
	if got := n.jsonpath("{.items[*].spec.nodeName}", "pods", "-l", "app=web"); got != "" {
		n.t.Errorf("after a drain pods are still on %q", got)
	}
	if out, err := n.CLI(n.ctx, "pods", "-o", "name"); err != nil || strings.Contains(out, "web-") {
		n.t.Errorf("after a drain the daemon has %q, %v", out, err)
	}
	if now := n.jsonpath(ids, "pods", "-l", "app=each"); now != each {
		n.t.Errorf("the DaemonSet's container is %s, before %s", now, each)
	}
	if now := n.jsonpath("{.status.containerStatuses[0].containerID}", "pod", "stays-node"); now != stays {
		n.t.Errorf("the static pod's container is %s, before %s", now, stays)
	}
	n.kubectl("uncordon", "node")
	n.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
	if err := n.RemoveManifest("stays"); err != nil {
		n.t.Fatal(err)
	}
	n.kubectl("delete", "deployment/web", "daemonset/each", "--timeout=60s")
	n.kubectl("wait", "--for=delete", "pods", "--all", "--timeout=60s")
}
