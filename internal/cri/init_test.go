package cri_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/pod"
	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// TestShareProcessNamespace: containers of the pod see each other below an init
// of ours, which reaps orphans, costs no memory to speak of, and survives a
// restart of the daemon.
func TestShareProcessNamespace(t *testing.T) {
	n := newNode(t, bed.Options{})
	before, err := n.bed.Snapshot(t.Context())
	check(t, err)
	config := n.sandboxConfig("p1")
	config.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
	sb := n.runSandbox(config)
	var ids []string
	for _, name := range []string{"one", "two"} {
		cc := containerConfig(name, 0)
		cc.Image.Image = image.Shell
		cc.Command = []string{"/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"}
		cc.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
		ids = append(ids, n.runContainer(sb, cc, config))
	}
	if s := n.Observe("p1"); len(s.Containers) != 2 {
		t.Errorf("the init is seen as a container: %+v", s.Containers)
	}
	r, err := n.ExecSync(t.Context(), ids[0], []string{"/bin/sh", "-c", "cat /proc/1/cmdline; echo; ps"})
	check(t, err)
	out := string(r.Stdout)
	if !strings.HasPrefix(out, "/init") || strings.Count(out, "trap") < 2 {
		t.Errorf("processes: %s", out)
	}
	// Only the init's are looked for: the shells have one now and then, for a moment.
	// Orphans: sh ends, its child is given to init and ends later.
	_, err = n.ExecSync(t.Context(), ids[0], []string{"/bin/sh", "-c", "(sleep 0.2 >/dev/null 2>&1 </dev/null &) ; exit 0"})
	check(t, err)
	<-time.After(600 * time.Millisecond)
	r, err = n.ExecSync(t.Context(), ids[1], []string{"/bin/sh", "-c", "for f in $(grep -l 'State:.Z' /proc/[0-9]*/status); do grep -l '^PPid:.1$' $f; done 2>/dev/null; true"})
	check(t, err)
	if len(r.Stdout) > 0 {
		t.Errorf("zombies: %s", r.Stdout)
	}
	n.stop()
	n.start()
	s := n.Observe("p1")
	if len(s.Sandboxes) != 1 || s.Sandboxes[0].State != pod.SandboxReady || len(s.Containers) != 2 {
		t.Fatalf("after a restart: %+v", s)
	}
	c, _ := find(s, ids[0])
	init := pidNamespaceInit(t, n, c.Pid)
	if status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", init)); !strings.Contains(string(status), "\nThreads:\t1\n") {
		t.Errorf("init: %s", status)
	}
	n.removePod("p1", 5*time.Second)
	n.nothingLeft(before)

	// Without its init the sandbox is no good.
	sb = n.runSandbox(config)
	cc := containerConfig("one", 1, "sleep", "forever")
	cc.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
	id := n.runContainer(sb, cc, config)
	c, _ = find(n.Observe("p1"), id)
	check(t, syscall.Kill(pidNamespaceInit(t, n, c.Pid), syscall.SIGKILL))
	n.awaitExit("p1", id, 5*time.Second)
	n.await("p1", "not ready", 5*time.Second, func(s pod.RuntimeState) bool { return s.Sandboxes[0].State == pod.SandboxNotReady })
	n.removePod("p1", 0)
	n.nothingLeft(before)
}

// pidNamespaceInit finds process 1 of the PID namespace that pid is in.
func pidNamespaceInit(t *testing.T, n *node, pid uint32) int {
	t.Helper()
	want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	check(t, err)
	for p := range n.bed.Processes() {
		ns, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", p))
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
		for line := range strings.Lines(string(status)) {
			if f := strings.Fields(line); ns == want && len(f) > 1 && f[0] == "NSpid:" && f[len(f)-1] == "1" {
				return p
			}
		}
	}
	t.Fatal("no init found")
	return 0
}
