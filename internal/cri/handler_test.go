package cri_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/cri"
	"nodeagent/internal/pod"
	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
)

// notingRunc is another OCI runtime: runc that notes for which containers it was
// asked to do what.
func notingRunc(t *testing.T) (path string, noted func(verb, id string) bool) {
	t.Helper()
	tools, err := bed.Tools(t.Context(), nil)
	check(t, err)
	dir := t.TempDir()
	path = filepath.Join(dir, "other-runc")
	script := fmt.Sprintf("#!/bin/sh\necho \" $* \" >>%[1]s/calls\nexec %[2]s/runc \"$@\"\n", dir, tools)
	check(t, os.WriteFile(path, []byte(script), 0o755))
	return path, func(verb, id string) bool {
		text, err := os.ReadFile(filepath.Join(dir, "calls"))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, " "+verb+" ") && strings.Contains(line, " "+id+" ") {
				return true
			}
		}
		return false
	}
}

// TestHandlers: the containers of a sandbox are run by its handler, also those
// that a later daemon adds, and those of others are not.
func TestHandlers(t *testing.T) {
	runc, noted := notingRunc(t)
	n := newNode(t, bed.Options{}, func(c *cri.Config) { c.Handlers = map[string]cri.Handler{"other": {Binary: runc}} })
	before, err := n.bed.Snapshot(t.Context())
	check(t, err)
	if _, err := n.RunPodSandbox(t.Context(), n.sandboxConfig("nobody"), "kata"); err == nil || !strings.Contains(err.Error(), `"kata"`) || !strings.Contains(err.Error(), "[other]") {
		t.Fatalf("an unknown handler is answered with %v", err)
	}
	config, plain := n.sandboxConfig("handled"), n.sandboxConfig("plain")
	sb, err := n.RunPodSandbox(t.Context(), config, "other")
	check(t, err)
	ours := n.runContainer(sb, containerConfig("main", 0, "sleep", "forever"), config)
	theirs := n.runContainer(n.runSandbox(plain), containerConfig("main", 0, "sleep", "forever"), plain)
	n.stop()
	n.start()
	added := n.runContainer(sb, containerConfig("added", 0, "exit", "3"), config)
	if end := n.awaitExit("handled", added, 10*time.Second); end.ExitCode != 3 || end.State != pod.ContainerExited {
		t.Errorf("the container that was added ended as %+v", end)
	}
	for _, id := range []string{ours, added} {
		if !noted("create", id) { // start and deletion the shim may do itself
			t.Errorf("container %s was not run by the sandbox's handler", id)
		}
	}
	if noted("create", theirs) {
		t.Error("a container of another sandbox was run by that handler")
	}
	n.removePod("handled", 10*time.Second)
	n.removePod("plain", 10*time.Second)
	n.nothingLeft(before)
}

// TestHandlerGone: a sandbox whose handler the operator has taken away gets no
// container by another one, and can be removed.
func TestHandlerGone(t *testing.T) {
	runc, _ := notingRunc(t)
	n := newNode(t, bed.Options{}, func(c *cri.Config) { c.Handlers = map[string]cri.Handler{"other": {Binary: runc}} })
	before, err := n.bed.Snapshot(t.Context())
	check(t, err)
	config := n.sandboxConfig("handled")
	sb, err := n.RunPodSandbox(t.Context(), config, "other")
	check(t, err)
	n.runContainer(sb, containerConfig("main", 0, "sleep", "forever"), config)
	n.stop()
	n.cfg.Handlers = nil
	n.start()
	if _, err := n.CreateContainer(t.Context(), sb, containerConfig("added", 0, "exit"), config); err == nil || !strings.Contains(err.Error(), `"other"`) {
		t.Errorf("a container without its handler is answered with %v", err)
	}
	n.removePod("handled", 10*time.Second)
	n.nothingLeft(before)
}

// TestCrun: an OCI runtime that is not runc runs containers, enters them, and
// their ends are told as those of runc's are. crun works on no hybrid tree.
func TestCrun(t *testing.T) {
	need.Have(t, need.Root, need.CgroupV2)
	crun, err := exec.LookPath("crun")
	check(t, err)
	n := newNode(t, bed.Options{}, func(c *cri.Config) { c.Handlers = map[string]cri.Handler{"crun": {Binary: crun}} })
	before, err := n.bed.Snapshot(t.Context())
	check(t, err)
	config := n.sandboxConfig("p1")
	sb, err := n.RunPodSandbox(t.Context(), config, "crun")
	check(t, err)
	cc := containerConfig("main", 0, "sleep", "forever")
	cc.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}}
	cc.Linux.SecurityContext.NoNewPrivs = true
	cc.Linux.Resources.MemoryLimitInBytes = 64 << 20
	id := n.runContainer(sb, cc, config)
	r, err := n.ExecSync(t.Context(), id, []string{"/podtool", "cat", "/proc/self/status"})
	for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000"} {
		if err != nil || !strings.Contains(string(r.Stdout), want) {
			t.Errorf("%q is not in the status of a process: %v\n%s%s", want, err, r.Stdout, r.Stderr)
		}
	}
	ends := n.runContainer(sb, containerConfig("ends", 0, "exit", "7"), config)
	if end := n.awaitExit("p1", ends, 10*time.Second); end.ExitCode != 7 {
		t.Errorf("it ended as %+v", end)
	}
	check(t, n.StopContainer(t.Context(), id, 10*time.Second))
	n.awaitExit("p1", id, 10*time.Second)
	n.removePod("p1", 10*time.Second)
	n.nothingLeft(before)
}
