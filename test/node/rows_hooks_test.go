package node

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/shimapi"
	"nodeagent/test/bed"
	"nodeagent/test/image"
)

const example = "image: " + image.Example

// startedPods are the pods of TestStartsAndEnds; hooks leave their marks in dir, on
// the host.
func startedPods(dir string) map[string]string {
	at := "  volumes: [{name: h, hostPath: {path: " + dir + "}}]\n"
	mounts := "volumeMounts: [{name: h, mountPath: /h}]"
	hook := func(kind, file string) string {
		return kind + ": {exec: {command: [/podtool, write, /h/" + file + ", done]}}"
	}
	return map[string]string{
		"hooks": at + spec("", "command: [/podtool, seq, wait, /h/started, ;, sleep, forever]\n"+mounts+
			"\nlifecycle: {"+hook("postStart", "started")+", "+hook("preStop", "stopping")+"}"),
		"badhook":  spec("restartPolicy: Never", "command: [/podtool, sleep, forever]\nlifecycle: {postStart: {exec: {command: [/podtool, exit, '3']}}}"),
		"slowhook": spec("", "command: [/podtool, deaf]\nlifecycle: {preStop: {sleep: {seconds: 1}}}"),
		"byhttp":   spec("", "command: [/podtool, serve, ':8080']\nlifecycle: {postStart: {sleep: {seconds: 0}}, preStop: {httpGet: {port: 8080, path: /end}}}"),
		"batch": "  restartPolicy: Never\n  initContainers:\n" +
			"  - {name: proxy, " + example + ", restartPolicy: Always, command: [/podtool, sleep, forever]}\n" +
			"  - {name: setup, " + example + ", command: [/podtool, print, '1']}\n" +
			spec("", "command: [/podtool, exit, '0', 1s]"),
		"limited": spec("activeDeadlineSeconds: 2", "command: [/podtool, sleep, forever]"),
		"own": "  restartPolicy: Never\n" + spec("", "command: [/podtool, exit, '42']\nrestartPolicy: Never\n"+
			"restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]"),
		"ordered": "  terminationGracePeriodSeconds: 20\n" + at + "  initContainers:\n" +
			orderly("first", "") + orderly("second", "") +
			"  - {name: setup, " + example + ", command: [/podtool, print, '1']}\n" +
			orderly("third", "") + "  containers:\n" + orderly("app", "no"),
		"anew": "  restartPolicy: Always\n  terminationGracePeriodSeconds: 2\n  volumes: [{name: once, emptyDir: {}}]\n  initContainers:\n" +
			"  - {name: setup, " + example + ", command: [/podtool, print, '1']}\n" +
			"  - {name: proxy, " + example + ", restartPolicy: Always, command: [/podtool, sleep, forever]}\n  containers:\n" +
			"  - {name: app, " + example + ", command: [/podtool, sleep, forever]}\n" +
			"  - name: asks\n    " + example + "\n    restartPolicy: Never\n    volumeMounts: [{name: once, mountPath: /once}]\n" +
			"    restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]\n" +
			"    command: [/podtool, once, /once/asked, '42']\n",
		"gate": "  readinessGates: [{conditionType: example.com/open}]\n" + spec("", "command: [/podtool, sleep, forever]"),
	}
}

// orderly is a container that says in the shared directory when it got TERM, and ends.
func orderly(name, app string) string {
	policy := "restartPolicy: Always, "
	if app != "" {
		policy = ""
	}
	return "  - {name: " + name + ", " + example + ", " + policy + "command: [/podtool, farewell, /h/" + name + "], " +
		"volumeMounts: [{name: h, mountPath: /h}]}\n"
}

// TestStartsAndEnds: hooks, sidecars, deadlines and restart rules on real containers.
func TestStartsAndEnds(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o777))
	n := newRowsNode(t, bed.AgentOptions{})
	for name, text := range startedPods(dir) {
		n.write(t, name, text)
	}
	t.Run("hooks", func(t *testing.T) { n.hooks(t, dir) })
	t.Run("failed hook", n.failedHook)
	t.Run("sidecar", n.sidecar)
	t.Run("sidecars in order", func(t *testing.T) { n.ordered(t, dir) })
	t.Run("all anew", n.allAnew)
	t.Run("deadline", n.deadline)
	t.Run("rules", n.ownRules)
	t.Run("gate", n.gate)
	t.Run("restart", n.restarted)
	t.Run("stop in a hook", n.stopInHook)
	must(t, n.a.RemoveManifests())
	waitGone(t, n.ctx, n.a)
}

// hooks: postStart runs while the container does, and preStop before its end.
func (n *rowsNode) hooks(t *testing.T, dir string) {
	n.pod(t, "hooks", "started", func(p *corev1.Pod) bool {
		_, err := os.Stat(filepath.Join(dir, "started"))
		return err == nil
	})
	must(t, n.a.RemoveManifest("hooks"))
	within(t, n.ctx, rowLimit, func() bool {
		_, err := os.Stat(filepath.Join(dir, "stopping"))
		return err == nil
	})
	n.pod(t, "byhttp", "ready", bed.Ready)
	must(t, n.a.RemoveManifest("byhttp"))
}

// failedHook: a postStart hook that fails ends its container, which is not started
// again where its policy says so.
func (n *rowsNode) failedHook(t *testing.T) {
	p := n.pod(t, "badhook", "over", inPhase(corev1.PodFailed, corev1.PodSucceeded))
	if c := p.Status.ContainerStatuses[0]; c.State.Terminated == nil || c.RestartCount != 0 {
		t.Errorf("the container is %+v", c)
	}
	if log := n.a.LogTail(1 << 20); !strings.Contains(log, "FailedPostStartHook") {
		t.Error("the log does not say why")
	}
}

// sidecar: it starts before the init container that follows, does not keep the pod from
// its end, and ends after its containers. The pod's shim ends too.
func (n *rowsNode) sidecar(t *testing.T) {
	p := n.pod(t, "batch", "over", inPhase(corev1.PodSucceeded, corev1.PodFailed))
	if p.Status.Phase != corev1.PodSucceeded {
		t.Fatalf("the pod is %+v", p.Status)
	}
	proxy, setup := p.Status.InitContainerStatuses[0].State.Terminated, p.Status.InitContainerStatuses[1].State.Terminated
	app := p.Status.ContainerStatuses[0].State.Terminated
	if proxy == nil || setup == nil || app == nil {
		t.Fatalf("the containers are %+v %+v", p.Status.InitContainerStatuses, p.Status.ContainerStatuses)
	}
	// Statuses tell times in seconds.
	if proxy.StartedAt.After(setup.StartedAt.Time) || proxy.FinishedAt.Time.Before(app.FinishedAt.Time) {
		t.Errorf("the sidecar ran from %s to %s, setup from %s, the app to %s", proxy.StartedAt, proxy.FinishedAt, setup.StartedAt, app.FinishedAt)
	}
	within(t, n.ctx, rowLimit, func() bool { return !n.hasShim(t, p) })
	if out, err := n.a.CLI(n.ctx, "logs", "batch-node", "-c", "setup"); err != nil || out == "" {
		t.Errorf("the log of a pod without a shim: %q, %v", out, err)
	}
}

// ordered: sidecars start in their order, and end in the reverse one after the
// containers.
func (n *rowsNode) ordered(t *testing.T, dir string) {
	p := n.pod(t, "ordered", "ready", bed.Ready)
	within(t, n.ctx, rowLimit, func() bool { // until then it is deaf to TERM
		_, err := os.Stat(filepath.Join(dir, "app.began"))
		return err == nil
	})
	must(t, n.a.RemoveManifest("ordered"))
	within(t, n.ctx, rowLimit, func() bool {
		_, err := os.Stat(filepath.Join(dir, "first.ended"))
		return err == nil
	})
	stamp := func(name, what string) int64 {
		text, err := os.ReadFile(filepath.Join(dir, name+"."+what))
		must(t, err)
		at, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		must(t, err)
		return at
	}
	names := []string{"first", "second", "third", "app"}
	for i, name := range names[1:] {
		before := names[i]
		if stamp(before, "began") > stamp(name, "began") {
			t.Errorf("%s began before %s", name, before)
		}
		if stamp(before, "asked") < stamp(name, "ended") {
			t.Errorf("%s was asked to end before %s had ended", before, name)
		}
	}
	ctx, cancel := context.WithTimeout(n.ctx, rowLimit)
	defer cancel()
	if err := n.a.WaitGone(ctx, "default/"+p.Name); err != nil {
		t.Error(err)
	}
}

// allAnew: a container whose rule says so has every container of its pod started
// again, init containers first, in the same sandbox with the same volumes.
func (n *rowsNode) allAnew(t *testing.T) {
	p := n.pod(t, "anew", "started anew", func(p *corev1.Pod) bool {
		for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
			if len(list) != 2 {
				return false
			}
			for _, c := range list {
				if c.RestartCount != 1 || c.State.Waiting != nil {
					return false
				}
			}
		}
		return true
	})
	proxy, app := p.Status.InitContainerStatuses[1], p.Status.ContainerStatuses[0]
	setup := p.Status.InitContainerStatuses[0].State.Terminated
	if setup == nil || proxy.State.Running == nil || app.State.Running == nil || setup.StartedAt.After(proxy.State.Running.StartedAt.Time) {
		t.Fatalf("the containers are %+v %+v", p.Status.InitContainerStatuses, p.Status.ContainerStatuses)
	}
	if end := app.LastTerminationState.Terminated; end == nil || end.Reason != "RestartingAllContainers" {
		t.Errorf("the run before ended as %+v", end)
	}
	records, err := n.b.Client(t).ContainerService().List(n.ctx, `labels."io.kubernetes.pod.uid"==`+string(p.UID)+`,labels."io.nodeagent.kind"==sandbox`)
	must(t, err)
	if len(records) != 1 {
		t.Errorf("%d sandboxes", len(records))
	}
}

// hasShim tells whether the shim of the pod's sandbox is there.
func (n *rowsNode) hasShim(t *testing.T, p *corev1.Pod) bool {
	t.Helper()
	shims, err := shimapi.ListShims(n.a.RunDir())
	must(t, err)
	ofPod := map[string]bool{}
	records, err := n.b.Client(t).ContainerService().List(n.ctx, `labels."io.kubernetes.pod.uid"==`+string(p.UID))
	must(t, err)
	for _, r := range records {
		ofPod[r.ID] = true
	}
	return slices.ContainsFunc(shims, func(id string) bool { return ofPod[id] })
}

// deadline: a pod that runs for too long is ended, and stays so for the next daemon.
func (n *rowsNode) deadline(t *testing.T) {
	exceeded := func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodFailed && p.Status.Reason == "DeadlineExceeded"
	}
	n.pod(t, "limited", "past its deadline", exceeded)
	must(t, n.a.Restart(n.ctx))
	p := n.pod(t, "limited", "past its deadline for the next daemon", exceeded)
	if c := p.Status.ContainerStatuses[0]; c.RestartCount != 0 {
		t.Errorf("it ran again: %+v", c)
	}
}

// ownRules: a rule of a container counts more than the policies.
func (n *rowsNode) ownRules(t *testing.T) {
	n.pod(t, "own", "restarted", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].RestartCount > 0
	})
}

// gate: a pod is not ready before its gate is open, which nobody opens here.
func (n *rowsNode) gate(t *testing.T) {
	p := n.pod(t, "gate", "running", inPhase(corev1.PodRunning))
	i := slices.IndexFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady })
	if c := p.Status.Conditions[i]; c.Status != corev1.ConditionFalse || c.Reason != "ReadinessGatesNotReady" {
		t.Errorf("the condition is %+v", c)
	}
}

// restarted: "restart" keeps the pod's address and what is not named, and refuses what
// it cannot do.
func (n *rowsNode) restarted(t *testing.T) {
	n.write(t, "pair", "  restartPolicy: Never\n  terminationGracePeriodSeconds: 2\n  containers:\n"+
		"  - {name: a, "+example+", command: [/podtool, sleep, forever]}\n  - {name: b, "+example+", command: [/podtool, sleep, forever]}\n")
	before := n.pod(t, "pair", "ready", bed.Ready)
	if out, err := n.a.CLI(n.ctx, "restart", "pair-node", "-c", "b"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	after := n.pod(t, "pair", "restarted", func(p *corev1.Pod) bool { return bed.Ready(p) && p.Status.ContainerStatuses[1].RestartCount == 1 })
	if after.Status.PodIP != before.Status.PodIP || after.Status.ContainerStatuses[0].ContainerID != before.Status.ContainerStatuses[0].ContainerID {
		t.Errorf("before %+v\nafter %+v", before.Status, after.Status)
	}
	if _, err := n.a.CLI(n.ctx, "restart", "pair-node"); err != nil {
		t.Error(err)
	}
	n.pod(t, "pair", "restarted as a whole", func(p *corev1.Pod) bool {
		return bed.Ready(p) && p.Status.ContainerStatuses[0].RestartCount == 1 && p.Status.ContainerStatuses[1].RestartCount == 2
	})
	for says, args := range map[string][]string{
		"exit status 6": {"restart", "nobody"},
		"exit status 1": {"restart", "batch-node"}, // it has ended
		"exit status 2": {"restart"},
	} {
		if out, err := n.a.CLI(n.ctx, args...); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v: %v, want %s\n%s", args, err, says, out)
		}
	}
}

// stopInHook: a daemon that is killed in a preStop hook leaves the stop to the next one,
// which ends the pod.
func (n *rowsNode) stopInHook(t *testing.T) {
	n.pod(t, "slowhook", "ready", bed.Ready)
	must(t, n.a.RemoveManifest("slowhook"))
	noted := func() bool {
		stops, err := os.ReadDir(filepath.Join(n.a.RunDir(), "stop"))
		return err == nil && len(stops) > 0
	}
	within(t, n.ctx, rowLimit, noted)
	must(t, n.a.Restart(n.ctx))
	ctx, cancel := context.WithTimeout(n.ctx, rowLimit)
	defer cancel()
	if err := n.a.WaitGone(ctx, "default/slowhook-node"); err != nil {
		t.Error(err)
	}
}
