package cri_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/cri"
	"nodeagent/internal/cri/critest"
	"nodeagent/internal/pod"
	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
)

func TestManyPodsAtOnce(t *testing.T) {
	n := newNode(t, bed.Options{})
	before, err := n.bed.Snapshot(t.Context())
	check(t, err)
	const pods = 50
	began := time.Now()
	var wg sync.WaitGroup
	for i := range pods {
		config := n.sandboxConfig(fmt.Sprintf("p%02d", i))
		wg.Go(func() {
			sb, err := n.RunPodSandbox(t.Context(), config, "")
			if err != nil {
				t.Error(err)
				return
			}
			id, err := n.CreateContainer(t.Context(), sb, containerConfig("main", 0, "sleep", "forever"), config)
			if err != nil {
				t.Error(err)
				return
			}
			if err := n.StartContainer(t.Context(), id); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	t.Logf("%d pods run after %s", pods, time.Since(began))
	n.stop()
	began = time.Now()
	n.start()
	t.Logf("adopted after %s", time.Since(began))
	for _, uid := range n.Pods() {
		for _, c := range n.Observe(uid).Containers {
			if c.State != pod.ContainerRunning {
				t.Errorf("%+v", c)
			}
		}
	}
	began = time.Now()
	for _, uid := range n.Pods() {
		wg.Go(func() { n.removePod(uid, 20*time.Second) })
	}
	wg.Wait()
	t.Logf("removed after %s", time.Since(began))
	n.nothingLeft(before)
}

// hungRunc is a runc that waits when a file says so for its verb.
func hungRunc(t *testing.T, dir string) (path string, hang func(verb string), free func(verb string)) {
	t.Helper()
	tools, err := bed.Tools(t.Context(), nil)
	check(t, err)
	path = filepath.Join(dir, "runc")
	script := fmt.Sprintf(`#!/bin/sh
for a in "$@"; do
	if [ "$last" = --pid-file ]; then init=$a; fi
	last=$a
	if [ -e "%[1]s/hang-$a" ]; then : > "%[1]s/in-$a"; exec sleep 600; fi
	if [ -e "%[1]s/die-$a" ]; then rm -f "%[1]s/die-$a"; kill -9 $$; fi
done
if [ -z "$init" ] || [ ! -e %[1]s/die-start ]; then exec %[2]s/runc "$@"; fi
%[2]s/runc "$@" && kill -STOP $(cat $init)
`, dir, tools)
	check(t, os.WriteFile(path, []byte(script), 0o755))
	return path, func(v string) { check(t, os.WriteFile(filepath.Join(dir, "hang-"+v), nil, 0o644)) },
		func(v string) { check(t, os.Remove(filepath.Join(dir, "hang-"+v))) }
}

// TestRuncHangs: one pod's start that hangs costs the others nothing, ends by
// its deadline, is cleaned up and can be tried again.
func TestRuncHangs(t *testing.T) {
	runc, hang, free := hungRunc(t, t.TempDir())
	n := newNode(t, bed.Options{}, func(c *cri.Config) { c.RuncBinary, c.CreateTimeout = runc, 10*time.Second })
	before, err := n.bed.Snapshot(t.Context())
	check(t, err)
	config := n.sandboxConfig("stuck")
	sb := n.runSandbox(config)
	id, err := n.CreateContainer(t.Context(), sb, containerConfig("main", 0, "sleep", "forever"), config)
	check(t, err)
	hang("create")
	began := time.Now()
	failed := make(chan error, 1)
	go func() { failed <- n.StartContainer(t.Context(), id) }()
	for in := filepath.Join(filepath.Dir(runc), "in-create"); ; {
		if _, err := os.Stat(in); err == nil {
			break
		}
		select {
		case err := <-failed:
			t.Fatalf("it did not hang: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	free("create") // only the one that is in it stays there
	other := n.sandboxConfig("other")
	osb := n.runSandbox(other)
	n.runContainer(osb, containerConfig("main", 0, "sleep", "forever"), other)
	select {
	case err := <-failed:
		t.Errorf("another pod's start outlasted the one that hung: %v", err)
		failed <- err
	default:
	}
	err = <-failed
	t.Logf("failed after %s: %v", time.Since(began), err)
	if err == nil || !cri.IsRetryable(err) {
		t.Errorf("err %v", err)
	}
	n.removePod("stuck", 0)
	n.removePod("other", 10*time.Second)
	n.nothingLeft(before)
}

// TestRuncDies: it was killed before it had made the container, and after; then
// the shim asks runc to start what does not take the shim's own word.
func TestRuncDies(t *testing.T) {
	dir := t.TempDir()
	runc, _, _ := hungRunc(t, dir)
	n := newNode(t, bed.Options{}, func(c *cri.Config) { c.RuncBinary = runc })
	before, err := n.bed.Snapshot(t.Context())
	check(t, err)
	config := n.sandboxConfig("p1")
	sb := n.runSandbox(config)
	for i, verb := range []string{"create", "start"} {
		check(t, os.WriteFile(filepath.Join(dir, "die-"+verb), nil, 0o644))
		id, err := n.CreateContainer(t.Context(), sb, containerConfig("main", uint32(i), "sleep", "forever"), config)
		check(t, err)
		if err := n.StartContainer(t.Context(), id); err == nil {
			t.Errorf("%s: no error", verb)
		}
		if c, _ := find(n.Observe("p1"), id); c.State != pod.ContainerExited || c.ExitCode != 128 {
			t.Errorf("%s: %+v", verb, c)
		}
	}
	n.runContainer(sb, containerConfig("main", 2, "sleep", "forever"), config)
	n.removePod("p1", 10*time.Second)
	n.nothingLeft(before)
}

func TestNetworkFails(t *testing.T) {
	n := newNode(t, bed.Options{Stock: true}, func(c *cri.Config) { c.CreateTimeout = 2 * time.Second })
	before, err := n.bed.Snapshot(t.Context())
	check(t, err)
	config := n.sandboxConfig("p1")
	for name, faults := range map[string][]critest.Fault{
		"refused":             {{Err: critest.ErrFault}},
		"late":                {{Err: critest.ErrFault, Late: true}},
		"hangs":               {{Hang: true}},
		"teardown fails once": {{Err: critest.ErrFault, Late: true}, {Err: critest.ErrFault}},
	} {
		n.net.Fail(faults...)
		if _, err := n.RunPodSandbox(t.Context(), config, ""); err == nil {
			t.Errorf("%s: no error", name)
		}
		for _, s := range n.Observe("p1").Sandboxes { // as the plan would
			if s.State != pod.SandboxNotReady || s.Reason != "Incomplete" {
				t.Errorf("%s: %+v", name, s)
			}
			check(t, n.StopPodSandbox(t.Context(), s.ID))
			check(t, n.RemovePodSandbox(t.Context(), s.ID))
		}
		if s := n.Observe("p1"); !s.Empty() {
			t.Errorf("%s: left %+v", name, s)
		}
	}
	n.nothingLeft(before)
}

func TestNamespaceLost(t *testing.T) {
	n := newNode(t, bed.Options{Stock: true}, func(c *cri.Config) { c.PinInterval = 500 * time.Millisecond })
	for _, how := range []string{"removed", "unmounted"} {
		config := n.sandboxConfig("p-" + how)
		n.runSandbox(config)
		uid := n.uid("p-" + how)
		pin := n.Observe(uid).Sandboxes[0].Netns
		check(t, unix.Unmount(pin, unix.MNT_DETACH))
		if how == "removed" {
			check(t, os.Remove(pin))
		}
		n.await(uid, "NetworkLost", 3*time.Second, func(s pod.RuntimeState) bool {
			return s.Sandboxes[0].State == pod.SandboxNotReady && s.Sandboxes[0].Reason == "NetworkLost"
		})
		n.removePod(uid, 0)
	}
}

// TestRecordRemoved: somebody takes a record away while its container runs. That is
// seen at once, and what ran is ended.
func TestRecordRemoved(t *testing.T) {
	n := newNode(t, bed.Options{})
	config := n.sandboxConfig("p1")
	id := n.runContainer(n.runSandbox(config), containerConfig("main", 0, "deaf"), config)
	c, _ := find(n.Observe("p1"), id)
	check(t, n.bed.Client(t).ContainerService().Delete(t.Context(), id))
	n.await("p1", "without containers", 10*time.Second, func(s pod.RuntimeState) bool { return len(s.Containers) == 0 })
	if state := processState(c.Pid); state != "" && state != "Z" {
		t.Errorf("the process still runs: %s", state)
	}
	n.removePod("p1", 0)
}

// TestDataLost: containerd's database is gone while pods run. What runs is
// ended before the pod may be made again.
func TestDataLost(t *testing.T) {
	n := newNode(t, bed.Options{})
	config := n.sandboxConfig("p1")
	sb := n.runSandbox(config)
	id := n.runContainer(sb, containerConfig("main", 0, "deaf"), config)
	c, _ := find(n.Observe("p1"), id)
	for _, daemon := range []string{"awake", "dead"} {
		if daemon == "dead" {
			n.stop()
		}
		check(t, n.bed.Kill())
		metas, err := filepath.Glob(filepath.Join(n.bed.Dir(), "root", "io.containerd.metadata*", "meta.db"))
		check(t, err)
		if len(metas) != 1 {
			t.Fatalf("databases %v", metas)
		}
		check(t, os.Remove(metas[0]))
		check(t, n.bed.StartAgain(t.Context()))
		if daemon == "dead" {
			n.start()
		}
		n.await("p1", "without containers", 10*time.Second, func(s pod.RuntimeState) bool {
			return len(s.Containers) == 0 && len(s.Sandboxes) == 1 && s.Sandboxes[0].State == pod.SandboxNotReady
		})
		if state := processState(c.Pid); state != "" && state != "Z" {
			t.Errorf("%s: the process still runs: %s", daemon, state)
		}
		n.removePod("p1", 0)
		if held := n.net.Held(); len(held) != 0 {
			t.Errorf("%s: addresses left %v", daemon, held)
		}
		check(t, n.bed.Import(t.Context()))
		sb = n.runSandbox(config)
		id = n.runContainer(sb, containerConfig("main", 0, "deaf"), config)
		c, _ = find(n.Observe("p1"), id)
	}
	n.removePod("p1", 0)
}

// TestShimStuck: the shim of one pod is stopped. Other pods feel nothing, and
// its own container can still be killed.
func TestShimStuck(t *testing.T) {
	limit := max(3*time.Second, need.Raced(time.Second))
	n := newNode(t, bed.Options{}, func(c *cri.Config) { c.CallTimeout = limit })
	config := n.sandboxConfig("stuck")
	sb := n.runSandbox(config)
	id := n.runContainer(sb, containerConfig("main", 0, "sleep", "forever"), config)
	pid := shimPid(t, n, sb)
	check(t, syscall.Kill(pid, syscall.SIGSTOP))
	defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
	n.stop()
	began := time.Now()
	n.start()
	if took := time.Since(began); took > limit/3 {
		t.Errorf("adopted after %s", took)
	}
	c, ok := find(n.Observe("stuck"), id)
	if !ok || c.State != pod.ContainerRunning || c.Pid == 0 {
		t.Errorf("%+v", c)
	}
	other := n.sandboxConfig("other")
	began = time.Now()
	osb := n.runSandbox(other)
	n.runContainer(osb, containerConfig("main", 0, "sleep", "forever"), other)
	n.removePod("other", 10*time.Second)
	if took := time.Since(began); took > need.Raced(5*time.Second) {
		t.Errorf("another pod took %s", took)
	}
	check(t, n.StopContainer(t.Context(), id, time.Second))
	if state := processState(c.Pid); state != "" && state != "Z" {
		t.Errorf("its process still runs: %s", state)
	}
	n.awaitExit("stuck", id, 10*time.Second)
	n.removePod("stuck", 0)
}

func TestRefused(t *testing.T) {
	n := newNode(t, bed.Options{Stock: true})
	config := n.sandboxConfig("p1")
	config.Linux.Sysctls = map[string]string{"kernel.core_pattern": "|/evil"}
	if _, err := n.RunPodSandbox(t.Context(), config, ""); err == nil || !strings.Contains(err.Error(), "not namespaced") {
		t.Error(err)
	}
	config.Linux.Sysctls = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shmmax": "1234567"}
	sb := n.runSandbox(config)
	cc := containerConfig("main", 0, "sleep", "forever")
	cc.LogPath = "../../../etc/cron.d/x"
	if _, err := n.CreateContainer(t.Context(), sb, cc, config); err == nil {
		t.Error("log path outside the pod's directory")
	}
	cc = containerConfig("main", 0, "sleep", "forever")
	cc.Annotations = map[string]string{pod.AnnotationNonRoot: "true"}
	if _, err := n.CreateContainer(t.Context(), sb, cc, config); !cri.IsRefused(err) {
		t.Errorf("runAsNonRoot: %v", err)
	}
	if _, err := n.CreateContainer(t.Context(), "nosuch", cc, config); !cri.IsNotFound(err) {
		t.Error(err)
	}
	if s := n.Observe("p1"); len(s.Containers) != 0 {
		t.Errorf("left %+v", s.Containers)
	}
	for range 2 { // idempotent
		check(t, n.StopPodSandbox(t.Context(), sb))
	}
	for range 2 {
		check(t, n.RemovePodSandbox(t.Context(), sb))
	}
	if err := n.RemoveContainer(t.Context(), "nosuch"); err != nil {
		t.Error(err)
	}
	if err := n.StartContainer(t.Context(), "nosuch"); !cri.IsNotFound(err) || errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
