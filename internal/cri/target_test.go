package cri_test

import (
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// TestTargetNamespace: a debug container sees the processes of the container that it
// names, of its own pod and while that one runs, and no others.
func TestTargetNamespace(t *testing.T) {
	n := newNode(t, bed.Options{})
	before, err := n.bed.Snapshot(t.Context())
	check(t, err)
	config, other := n.sandboxConfig("p1"), n.sandboxConfig("p2")
	sb, otherSandbox := n.runSandbox(config), n.runSandbox(other)
	target := n.runContainer(sb, containerConfig("main", 0, "sleep", "forever"), config)
	n.runContainer(sb, containerConfig("beside", 0, "deaf"), config)
	ended := n.runContainer(sb, containerConfig("ended", 0, "exit", "0"), config)
	n.awaitExit("p1", ended, 10*time.Second)
	stranger := n.runContainer(otherSandbox, containerConfig("stranger", 0, "sleep", "forever"), other)

	debug := func(target string) *runtimeapi.ContainerConfig {
		cc := containerConfig("debug", 0)
		cc.Image.Image = image.Shell
		cc.Command = []string{"/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"}
		o := cc.Linux.SecurityContext.NamespaceOptions
		o.Pid, o.TargetId = runtimeapi.NamespaceMode_TARGET, target
		return cc
	}
	id := n.runContainer(sb, debug(target), config)
	r, err := n.ExecSync(t.Context(), id, []string{"/bin/sh", "-c", "tr '\\0' ' ' </proc/1/cmdline; echo; ps"})
	check(t, err)
	out := string(r.Stdout)
	if first, _, _ := strings.Cut(out, "\n"); !strings.Contains(first, "sleep forever") {
		t.Errorf("process 1 is %q", first)
	}
	if strings.Contains(out, "deaf") {
		t.Errorf("it sees a container that it does not name:\n%s", out)
	}
	for what, target := range map[string]string{"ended": ended, "of another pod": stranger, "unknown": "nobody"} {
		if id, err := n.CreateContainer(t.Context(), sb, debug(target), config); err == nil {
			t.Errorf("a target that is %s was accepted: %s", what, id)
		} else {
			t.Log(err)
		}
	}
	n.removePod("p1", 0)
	n.removePod("p2", 0)
	n.nothingLeft(before)
}
