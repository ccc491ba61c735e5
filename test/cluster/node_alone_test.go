package cluster_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/durable"
	"nodeagent/internal/source"
	"nodeagent/test/bed"
	"nodeagent/test/image"
)

const probedPod = `
apiVersion: v1
kind: Pod
metadata: {name: probed}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: ` + image.Shell + `, imagePullPolicy: Never, command: [/bin/sleep, "100000"],
     livenessProbe: {exec: {command: [/bin/sh, -c, "test ! -e /ill"]}, periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 1}}
`

// alone: the API server is gone and the daemon was killed. The next one starts the
// container again that crashes, and the one whose probe fails, and what happened is told
// when the server is back.
func (n *node) alone() {
	n.apply(sleeper("crashing", "") + "---" + probedPod)
	n.kubectl("wait", ready, "pod/crashing", "pod/probed", "--timeout=60s")
	n.cached("crashing", "probed")
	crashing := n.process("crashing")
	if err := n.c.APIServer.Kill(); err != nil {
		n.t.Fatal(err)
	}
	n.restart()
	n.runs("default/crashing")
	if err := unix.Kill(crashing, unix.SIGKILL); err != nil {
		n.t.Fatal(err)
	}
	n.runs("default/probed")
	if out, err := n.CLI(n.ctx, "exec", "probed", "--", "/bin/touch", "/ill"); err != nil {
		n.t.Fatalf("make a pod ill: %v\n%s", err, out)
	}
	n.restartedOnce("default/crashing")
	n.restartedOnce("default/probed")
	if err := n.c.ServerBack(n.ctx); err != nil {
		n.t.Fatal(err)
	}
	for _, name := range []string{"crashing", "probed"} {
		n.kubectl("wait", "--for=jsonpath={.status.containerStatuses[0].restartCount}=1", "pod/"+name, "--timeout=90s")
		n.kubectl("wait", ready, "pod/"+name, "node/node", "--timeout=90s")
	}
	n.kubectl("delete", "pod", "crashing", "probed", "--timeout=60s")
}

// cached waits until the daemon has written down that it has these pods, and what
// containers are told of services.
func (n *node) cached(names ...string) {
	n.t.Helper()
	dir, err := durable.New(durable.Config{Path: filepath.Join(n.StateDir(), "pods")})
	if err != nil {
		n.t.Fatal(err)
	}
	for limit := time.Now().Add(30 * time.Second); ; bed.Pause(n.ctx, 50*time.Millisecond) {
		pods, err := source.ReadPodCache(dir)
		known := map[string]bool{}
		for _, p := range pods {
			known[p.Name] = true
		}
		_, unread := os.Stat(filepath.Join(n.StateDir(), "services", "services"))
		if unread == nil && !slices.ContainsFunc(names, func(name string) bool { return !known[name] }) {
			return
		}
		if time.Now().After(limit) {
			n.t.Fatalf("the daemon has written down %v, %v; of services: %v", known, err, unread)
		}
	}
}

// restartedOnce waits until the daemon has a pod Ready whose container runs for the
// second time.
func (n *node) restartedOnce(pod string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.ctx, time.Minute)
	defer cancel()
	err := n.WaitPods(ctx, func(pods map[string]*corev1.Pod) bool {
		p := pods[pod]
		return p != nil && bed.Ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	if err != nil {
		n.t.Fatalf("the container of %s is not started again: %v", pod, err)
	}
}

// process is that of a pod's first container.
func (n *node) process(pod string) int {
	n.t.Helper()
	id, _, _ := strings.Cut(strings.TrimPrefix(n.container(pod), "containerd://"), " ")
	all, err := n.bed.Running(n.ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	pid, _, _ := strings.Cut(all[id], " ")
	number, err := strconv.Atoi(pid)
	if err != nil {
		n.t.Fatalf("pod %s has no process: %v", pod, err)
	}
	return number
}
