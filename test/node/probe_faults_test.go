package node

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	containerdns "github.com/containerd/containerd/v2/pkg/namespaces"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// running are the bed's processes with exactly these arguments, by pid with the
// mark of their start.
func (n *rowsNode) running(args ...string) map[int]string {
	found := map[int]string{}
	for pid, mark := range n.b.Processes() {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && string(raw) == strings.Join(args, "\x00")+"\x00" {
			found[pid] = mark
		}
	}
	return found
}

// TestExecProbeOfADeadDaemon: the command that a killed daemon was running in a
// container has nobody to watch its timeout; the next daemon ends it.
func TestExecProbeOfADeadDaemon(t *testing.T) {
	n := newRowsNode(t, bed.AgentOptions{})
	n.write(t, "long", spec("", "command: [/podtool, deaf]\nreadinessProbe: {exec: {command: [/podtool, sleep, forever]}, timeoutSeconds: 3600}"))
	command := []string{"/podtool", "sleep", "forever"}
	until := func(what string, ok func(map[int]string) bool) map[int]string {
		t.Helper()
		for end := time.Now().Add(rowLimit); time.Now().Before(end); bed.Pause(n.ctx, 20*time.Millisecond) {
			if got := n.running(command...); ok(got) {
				return got
			}
		}
		t.Fatalf("%s: %v run", what, n.running(command...))
		return nil
	}
	left := until("the probe runs", func(all map[int]string) bool { return len(all) == 1 })
	must(t, n.a.Kill())
	until("it outlives the daemon", func(all map[int]string) bool { return len(all) == 1 })
	must(t, n.a.Start(n.ctx))
	until("the next daemon ends it", func(all map[int]string) bool {
		for pid, mark := range left {
			if all[pid] == mark {
				return false
			}
		}
		return true
	})
	if s := app(n.pod(t, "long", "running", inPhase(corev1.PodRunning))); s.RestartCount > 0 {
		t.Errorf("the container was restarted: %+v", s)
	}
	// And a daemon that ends in peace takes its own along.
	until("the next daemon asks", func(all map[int]string) bool { return len(all) == 1 })
	must(t, n.a.Terminate(rowLimit))
	until("a daemon that ends leaves none", func(all map[int]string) bool { return len(all) == 0 })
	must(t, n.a.Start(n.ctx))
}

// TestProbesWithoutContainerd: a containerd that hangs or dies fails no liveness
// probe, and those over the network go on.
func TestProbesWithoutContainerd(t *testing.T) {
	n := newProbeNode(t, bed.AgentOptions{})
	n.write(t, "exec", healthy("", "livenessProbe: {exec: {command: [/podtool, exit, '0']}, periodSeconds: 1, timeoutSeconds: 2, failureThreshold: 1}"))
	n.write(t, "http", healthy("", "readinessProbe: {httpGet: {port: web, path: /code/200}, periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 1}"))
	n.pod(t, "exec", "ready", isReady)
	n.pod(t, "http", "ready", isReady)
	n.asked(t, "exec", 1)
	before, err := n.b.Running(n.ctx)
	must(t, err)
	must(t, n.b.Stop())
	_, web, none := n.total(t, "http")
	bed.Pause(n.ctx, 6*time.Second)
	if _, now, failed := n.total(t, "http"); now < web+3 || failed > none {
		t.Errorf("with containerd hung %d probes over the network succeeded and %d failed", now-web, failed-none)
	}
	must(t, n.b.Cont())
	n.asked(t, "exec", 2)
	must(t, n.b.Kill())
	bed.Pause(n.ctx, 3*time.Second)
	must(t, n.b.StartAgain(n.ctx))
	n.asked(t, "exec", 2)
	if s := app(n.pod(t, "exec", "ready", isReady)); s.RestartCount > 0 {
		t.Errorf("the container was restarted: %+v", s)
	}
	after, err := n.b.Running(n.ctx)
	must(t, err)
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("the containers that run were %v and are %v", before, after)
	}
}

// shownProbe is one probe at /v1/probes.
type shownProbe struct {
	Pod                         string
	Successful, Failed, Unknown int
}

// total is how often all pods' probes, or one pod's, were asked, and how that
// went.
func (n *rowsNode) total(t *testing.T, name string) (all, successful, failed int) {
	t.Helper()
	raw, err := n.a.Get(n.ctx, "/v1/probes")
	must(t, err)
	var probes []shownProbe
	must(t, json.Unmarshal(raw, &probes))
	for _, p := range probes {
		if name == "" || p.Pod == name+"-node" {
			all += p.Successful + p.Failed + p.Unknown
			successful += p.Successful
			failed += p.Failed
		}
	}
	return all, successful, failed
}

// asked waits until so many more probes of the pod have succeeded.
func (n *rowsNode) asked(t *testing.T, name string, more int) {
	t.Helper()
	_, first, _ := n.total(t, name)
	for end := time.Now().Add(3 * rowLimit); time.Now().Before(end); bed.Pause(n.ctx, 50*time.Millisecond) {
		if _, now, _ := n.total(t, name); now >= first+more {
			return
		}
	}
	t.Fatalf("%d more probes of %q did not succeed", more, name)
}

// held is what execs may leak.
type held struct {
	fds, threads, memory int // of the daemon; memory in KiB
	shim                 int // open files of the shims
	files                int // in the run directory
	processes            int // known to the shim in the containers
}

func (n *rowsNode) held(t *testing.T, ids []string) held {
	t.Helper()
	h := held{fds: n.a.FDs(), threads: n.status(t, "Threads"), memory: n.status(t, "VmRSS")}
	must(t, filepath.WalkDir(n.a.RunDir(), func(string, fs.DirEntry, error) error { h.files++; return nil }))
	for pid := range n.b.Processes() {
		if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(comm), "containerd-shim") {
			open, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
			h.shim += len(open)
		}
	}
	c, err := n.b.Dial()
	must(t, err)
	defer c.Close()
	for _, id := range ids {
		r, err := c.TaskService().ListPids(containerdns.WithNamespace(n.ctx, bed.Namespace), &tasks.ListPidsRequest{ContainerID: id})
		must(t, err)
		h.processes += len(r.Processes)
	}
	return h
}

// status is a number of the daemon's /proc/<pid>/status.
func (n *rowsNode) status(t *testing.T, key string) int {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.a.Pid))
	must(t, err)
	for line := range strings.Lines(string(raw)) {
		if k, v, _ := strings.Cut(line, ":"); k == key {
			number, err := strconv.Atoi(strings.Fields(v)[0])
			must(t, err)
			return number
		}
	}
	t.Fatalf("no %s", key)
	return 0
}

// TestExecProbesLeakNothing: hundreds of exec probes (EXECS says how many; "make
// soak" runs ten thousand), good ones, bad ones and ones that are killed, leave
// no file, descriptor, thread or process behind.
func TestExecProbesLeakNothing(t *testing.T) {
	execs := 300
	if more, err := strconv.Atoi(os.Getenv("EXECS")); err == nil {
		execs = more
	}
	n := newRowsNode(t, bed.AgentOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), need.Slow(2*time.Minute)+time.Duration(execs)*time.Second/5)
	defer cancel()
	n.ctx = ctx
	commands := []string{"[/podtool, exit, '0']", "[/podtool, exit, '1']", "[/podtool, print, '2000']", "[/nope]"}
	all := "  terminationGracePeriodSeconds: 2\n  containers:\n"
	for i := range 8 {
		all += fmt.Sprintf("  - {name: c%d, image: %s, command: [/podtool, sleep, forever], readinessProbe: {exec: {command: %s}, periodSeconds: 1}}\n", i, image.Example, commands[i%len(commands)])
	}
	all += "  - {name: long, image: " + image.Example + ", command: [/podtool, sleep, forever], readinessProbe: {exec: {command: [/podtool, deaf]}, periodSeconds: 10}}\n"
	n.write(t, "execs", all)
	p := n.pod(t, "execs", "running", inPhase(corev1.PodRunning))
	var ids []string
	for _, s := range p.Status.ContainerStatuses {
		ids = append(ids, strings.TrimPrefix(s.ContainerID, "containerd://"))
	}
	const warm = 100 // until what is kept for reuse is there
	count := func() int { got, _, _ := n.total(t, ""); return got }
	until := func(total int) {
		for count() < total {
			if ctx.Err() != nil {
				t.Fatalf("only %d probes of %d", count(), total)
			}
			bed.Pause(ctx, 100*time.Millisecond)
		}
	}
	until(warm)
	least := func() held { // of a few looks: some execs are always under way
		best := n.held(t, ids)
		for range 10 {
			bed.Pause(ctx, 110*time.Millisecond)
			h := n.held(t, ids)
			best = held{min(best.fds, h.fds), min(best.threads, h.threads), min(best.memory, h.memory), min(best.shim, h.shim), min(best.files, h.files), min(best.processes, h.processes)}
		}
		return best
	}
	before := least()
	until(warm + execs)
	after := least()
	t.Logf("after %d execs: %+v, before: %+v", execs, after, before)
	const slack = 6 // what is under way; threads are kept for what blocks at a time
	if after.fds > before.fds+slack || after.threads > before.threads+3*slack || after.shim > before.shim+slack ||
		after.files > before.files+2*slack || after.processes > before.processes+slack || after.memory > before.memory+16<<10 {
		t.Errorf("after %d execs there are %+v, before there were %+v", execs, after, before)
	}
}
