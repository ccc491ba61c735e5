package cri_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"nodeagent/internal/pod"
	"nodeagent/internal/shimapi"
	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
)

// TestExitWhileAway: the exit code survives while daemon, containerd or both are
// dead, also when containerd starts first and throws the stopped task away.
func TestExitWhileAway(t *testing.T) {
	for _, dead := range []string{"nobody", "daemon", "containerd", "both"} {
		t.Run(dead, func(t *testing.T) {
			n := newNode(t, bed.Options{})
			config := n.sandboxConfig("p1")
			sb := n.runSandbox(config)
			id := n.runContainer(sb, containerConfig("main", 0, "exit", "7", "1500ms"), config)
			if dead == "daemon" || dead == "both" {
				n.stop()
			}
			if dead == "containerd" || dead == "both" {
				check(t, n.bed.Kill())
			}
			awaitRecord(t, n, id)
			if dead == "containerd" || dead == "both" {
				check(t, n.bed.StartAgain(t.Context()))
			}
			if dead == "daemon" || dead == "both" {
				n.start()
			}
			c := n.awaitExit("p1", id, 5*time.Second)
			if c.ExitCode != 7 || c.Reason != "Error" || c.OOMKilled {
				t.Errorf("%+v", c)
			}
			n.awaitDurable(id)
			// The record's label is enough: without the run directory's record,
			// and without the task.
			n.stop()
			check(t, os.RemoveAll(shimapi.ExitDir(n.cfg.RunDir)))
			n.start()
			again := n.awaitExit("p1", id, 5*time.Second)
			if again.ExitCode != 7 || !again.Finished.Equal(c.Finished) {
				t.Errorf("%+v\nwas %+v", again, c)
			}
			n.removePod("p1", 0)
		})
	}
}

func awaitRecord(t *testing.T, n *node, id string) {
	t.Helper()
	for end := time.Now().Add(need.Slow(20 * time.Second)); time.Now().Before(end); {
		if _, err := shimapi.ReadExit(n.cfg.RunDir, id); err == nil {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	t.Fatal("no exit record")
}

// awaitDurable waits until the end of a container is on its record.
func (n *node) awaitDurable(id string) {
	n.t.Helper()
	client := n.bed.Client(n.t)
	for end := time.Now().Add(need.Slow(10 * time.Second)); time.Now().Before(end); {
		r, err := client.ContainerService().Get(n.t.Context(), id)
		if err == nil && r.Labels["io.nodeagent.exit"] != "" {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	n.t.Fatal("the end is not on the record")
}

func TestContainerdKilledWithManyContainers(t *testing.T) {
	n := newNode(t, bed.Options{})
	const pods = 10
	pids := map[string]uint32{}
	for i := range pods {
		uid := "p" + string(rune('a'+i))
		config := n.sandboxConfig(uid)
		sb := n.runSandbox(config)
		for _, name := range []string{"one", "two"} {
			n.runContainer(sb, containerConfig(name, 0, "sleep", "forever"), config)
		}
		for _, c := range n.Observe(n.uid(uid)).Containers {
			pids[c.ID] = c.Pid
		}
	}
	same := func(when string) {
		t.Helper()
		seen := 0
		for _, uid := range n.Pods() {
			s := n.Observe(uid)
			if len(s.Sandboxes) != 1 || s.Sandboxes[0].State != pod.SandboxReady {
				t.Errorf("%s: sandboxes of %s: %+v", when, uid, s.Sandboxes)
			}
			for _, c := range s.Containers {
				seen++
				if c.State != pod.ContainerRunning || c.Pid != pids[c.ID] || c.Pid == 0 {
					t.Errorf("%s: %+v, pid was %d", when, c, pids[c.ID])
				}
				if err := syscall.Kill(int(c.Pid), 0); err != nil {
					t.Errorf("%s: process %d: %v", when, c.Pid, err)
				}
			}
		}
		if seen != len(pids) {
			t.Errorf("%s: %d of %d containers", when, seen, len(pids))
		}
	}
	n.cfg.PingInterval = time.Second
	began := time.Now()
	n.stop()
	n.start()
	t.Logf("adopted %d containers in %s", len(pids), time.Since(began))
	same("daemon restarted")
	for range 2 {
		check(t, n.bed.Kill())
		n.awaitHealth(false, need.Raced(2*time.Second))
		same("containerd dead")
		check(t, n.bed.StartAgain(t.Context()))
		n.awaitHealth(true, need.Raced(2*time.Second))
		same("containerd back")
	}
	check(t, n.bed.Stop())
	n.awaitHealth(false, 15*time.Second)
	if err := n.Healthy(); !strings.Contains(err.Error(), "RuntimeUnresponsive") {
		t.Error(err)
	}
	same("containerd hung")
	check(t, n.bed.Cont())
	n.awaitHealth(true, need.Raced(5*time.Second))
	same("containerd awake")
	for _, uid := range n.Pods() {
		n.removePod(uid, 10*time.Second)
	}
}

func (n *node) awaitHealth(well bool, limit time.Duration) {
	n.t.Helper()
	limit = need.Slow(limit)
	began := time.Now()
	for time.Since(began) < limit {
		if (n.Healthy() == nil) == well {
			n.t.Logf("healthy=%t after %s", well, time.Since(began))
			return
		}
		<-time.After(5 * time.Millisecond)
	}
	n.t.Errorf("healthy is not %t after %s: %v", well, limit, n.Healthy())
}

func TestStop(t *testing.T) {
	n := newNode(t, bed.Options{})
	for _, c := range []struct {
		name       string
		args       []string
		grace, max time.Duration
		code       int32
	}{
		{"obeys", []string{"sleep", "forever"}, 20 * time.Second, 5 * time.Second, 0},
		{"deaf", []string{"deaf"}, time.Second, 6 * time.Second, 137},
		{"forks", []string{"fork", "3", "deaf"}, time.Second, 6 * time.Second, -1},
		{"no grace", []string{"sleep", "forever"}, 0, 5 * time.Second, 137},
	} {
		t.Run(c.name, func(t *testing.T) {
			uid := strings.ReplaceAll(c.name, " ", "-")
			config := n.sandboxConfig(uid)
			sb := n.runSandbox(config)
			id := n.runContainer(sb, containerConfig("main", 0, c.args...), config)
			<-time.After(300 * time.Millisecond) // those of the children that it forks are up, too
			began := time.Now()
			check(t, n.StopContainer(t.Context(), id, c.grace))
			took := time.Since(began)
			got, _ := find(n.Observe(n.uid(uid)), id)
			if got.State != pod.ContainerExited || c.code >= 0 && got.ExitCode != c.code {
				t.Errorf("%+v", got)
			}
			if took > c.max || c.code == 137 && took < c.grace {
				t.Errorf("took %s", took)
			}
			n.removePod(n.uid(uid), 0)
		})
	}
}

// TestStopKeepsItsDeadline: a daemon that comes back goes on with the grace that
// is left.
func TestStopKeepsItsDeadline(t *testing.T) {
	n := newNode(t, bed.Options{})
	config := n.sandboxConfig("p1")
	sb := n.runSandbox(config)
	id := n.runContainer(sb, containerConfig("main", 0, "deaf"), config)
	<-time.After(300 * time.Millisecond)
	began := time.Now()
	ctx, cancel := contextWithTimeout(t, time.Second)
	defer cancel()
	if err := n.StopContainer(ctx, id, 4*time.Second); err == nil {
		t.Fatal("stopped although it is deaf")
	}
	n.stop()
	n.start()
	check(t, n.StopContainer(t.Context(), id, 60*time.Second))
	if took := time.Since(began); took < 4*time.Second || took > 10*time.Second {
		t.Errorf("took %s", took)
	}
	n.removePod("p1", 0)
}

func TestShimKilled(t *testing.T) {
	n := newNode(t, bed.Options{})
	config := n.sandboxConfig("p1")
	sb := n.runSandbox(config)
	id := n.runContainer(sb, containerConfig("main", 0, "sleep", "forever"), config)
	c, _ := find(n.Observe("p1"), id)
	r, err := shimapi.ReadShim(n.cfg.RunDir, sb)
	check(t, err)
	began := time.Now()
	check(t, syscall.Kill(r.Pid, syscall.SIGKILL))
	end := n.awaitExit("p1", id, 5*time.Second)
	t.Logf("after %s: %d %s %s", time.Since(began), end.ExitCode, end.Reason, end.Message)
	if end.ExitCode != 137 {
		t.Errorf("%+v", end)
	}
	if state := processState(c.Pid); state != "" && state != "Z" {
		t.Errorf("the process still runs: %s", state)
	}
	// The next run in the same sandbox gets a new shim.
	check(t, n.StopContainer(t.Context(), id, 0))
	id2, err := n.CreateContainer(t.Context(), sb, containerConfig("main", 1, "sleep", "forever"), config)
	check(t, err)
	check(t, n.StartContainer(t.Context(), id2))
	n.removePod("p1", 0)
}

// processState is the letter of /proc/<pid>/stat; "" when it is gone.
func processState(pid uint32) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return rest[:1]
}

func TestStartError(t *testing.T) {
	n := newNode(t, bed.Options{})
	before, err := n.bed.Snapshot(t.Context())
	check(t, err)
	config := n.sandboxConfig("p1")
	sb := n.runSandbox(config)
	cc := containerConfig("main", 0)
	cc.Command = []string{"/nosuch"}
	id, err := n.CreateContainer(t.Context(), sb, cc, config)
	check(t, err)
	if err := n.StartContainer(t.Context(), id); err == nil {
		t.Fatal("started")
	}
	c, _ := find(n.Observe("p1"), id)
	if c.State != pod.ContainerExited || c.ExitCode != 128 || c.Reason != "StartError" || !strings.Contains(c.Message, "nosuch") {
		t.Errorf("%+v", c)
	}
	n.stop()
	n.start()
	again, _ := find(n.Observe("p1"), id)
	if again.ExitCode != 128 || again.Reason != "StartError" {
		t.Errorf("%+v", again)
	}
	n.removePod("p1", 0)
	n.nothingLeft(before)
}

func TestOOMKilled(t *testing.T) {
	n := newNode(t, bed.Options{})
	config := n.sandboxConfig("p1")
	sb := n.runSandbox(config)
	cc := containerConfig("main", 0, "alloc", "256")
	cc.Linux.Resources.MemoryLimitInBytes = 32 << 20
	id := n.runContainer(sb, cc, config)
	if c := n.awaitExit("p1", id, 20*time.Second); !c.OOMKilled || c.Reason != "OOMKilled" || c.ExitCode != 137 {
		t.Errorf("%+v", c)
	}
	// A stop by SIGKILL is none.
	id = n.runContainer(sb, containerConfig("main", 1, "sleep", "forever"), config)
	check(t, n.StopContainer(t.Context(), id, 0))
	if c, _ := find(n.Observe("p1"), id); c.OOMKilled || c.Reason != "Error" || c.ExitCode != 137 {
		t.Errorf("%+v", c)
	}
	n.removePod("p1", 0)
}

// TestRunDirectoryEmptied: it is a cache. Exits are still seen and containers
// still start.
func TestRunDirectoryEmptied(t *testing.T) {
	n := newNode(t, bed.Options{})
	config := n.sandboxConfig("p1")
	sb := n.runSandbox(config)
	id := n.runContainer(sb, containerConfig("main", 0, "sleep", "forever"), config)
	for _, dir := range []string{"exit", "started", "stop"} {
		check(t, os.RemoveAll(n.cfg.RunDir+"/"+dir))
	}
	<-time.After(300 * time.Millisecond)
	began := time.Now()
	check(t, n.StopContainer(t.Context(), id, 20*time.Second))
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the end was seen after %s", took)
	}
	id = n.runContainer(sb, containerConfig("main", 1, "exit", "3"), config)
	if c := n.awaitExit("p1", id, 5*time.Second); c.ExitCode != 3 {
		t.Errorf("%+v", c)
	}
	n.removePod("p1", 0)
}
