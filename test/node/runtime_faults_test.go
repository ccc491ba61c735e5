package node

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/shimapi"
	"nodeagent/test/bed"
)

// TestRuntimeFaults lets shim, runc and containerd die, hang and lose their data.
func TestRuntimeFaults(t *testing.T) {
	n := newFaultNode(t, nil)
	n.suffer("shim killed", (*faultNode).shimKilled)
	n.suffer("runc dies after create", (*faultNode).runcDies)
	n.suffer("runc hangs", (*faultNode).runcHangs)
	n.suffer("containerd hangs", (*faultNode).containerdHangs)
	n.suffer("containerd loses its data", (*faultNode).dataLost)
}

// shimKilled: the container of a shim that is killed has ended with 137, once,
// and runs again as its policy says.
func (n *faultNode) shimKilled() {
	n.write("always", "Always", "[/podtool, sleep, forever, shim-killed]")
	n.write("never", "Never", "[/podtool, sleep, forever, shim-killed]")
	n.ready("always", 20*time.Second)
	n.ready("never", 20*time.Second)
	for id := range n.running() {
		n.killShimOf(id)
	}
	p := n.await("always", "run again", 10*time.Second, restarted(1))
	last := p.Status.ContainerStatuses[0].LastTerminationState.Terminated
	if last == nil || last.ExitCode != 137 {
		n.Errorf("the container ended with %+v, want 137", last)
	}
	p = n.await("never", "Failed", 10*time.Second, func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if s := terminatedState(p); s == nil || s.ExitCode != 137 || p.Status.ContainerStatuses[0].RestartCount != 0 {
		n.Errorf("the container ended as %+v, want 137 and no restart", p.Status.ContainerStatuses)
	}
	n.oneRuns("shim-killed")
}

// killShimOf kills the shim of a container.
func (n *faultNode) killShimOf(container string) {
	n.Helper()
	c, err := n.b.Dial()
	must(n.T, err)
	defer c.Close()
	r, err := c.ContainerService().Get(n.ctx, container)
	must(n.T, err)
	shims, err := shimapi.ListShims(n.a.RunDir())
	must(n.T, err)
	for _, sandbox := range shims {
		if !strings.Contains(string(r.Spec.GetValue()), sandbox) {
			continue
		}
		s, err := shimapi.ReadShim(n.a.RunDir(), sandbox)
		must(n.T, err)
		must(n.T, unix.Kill(s.Pid, unix.SIGKILL))
		return
	}
	n.Fatalf("no shim of container %s among %v", container, shims)
}

// runcDies: killed when the container is made but not started, it is made again.
func (n *faultNode) runcDies() {
	flag := filepath.Join(n.dir, "die-create")
	must(n.T, os.WriteFile(flag, []byte("runc-dies"), 0o644))
	n.write("victim", "Always", "[/podtool, sleep, forever, runc-dies]")
	n.ready("victim", 20*time.Second)
	if _, err := os.Stat(flag); err == nil {
		n.Error("runc did not die: the test proves nothing")
	}
	n.oneRuns("runc-dies")
}

// runcHangs: while runc hangs for one pod another one starts, and the next
// daemon ends what the first one waited for and starts the pod.
func (n *faultNode) runcHangs() {
	flag := filepath.Join(n.dir, "hang-create")
	must(n.T, os.WriteFile(flag, []byte("runc-hangs"), 0o644))
	n.write("victim", "Always", "[/podtool, sleep, forever, runc-hangs]")
	n.until("runc hangs", 20*time.Second, func() bool { return hung(n.b) != 0 })
	n.write("other", "Always", "[/podtool, sleep, forever]")
	n.ready("other", 10*time.Second)
	must(n.T, os.Remove(flag))
	must(n.T, n.a.Restart(n.ctx))
	n.ready("victim", 20*time.Second)
	n.oneRuns("runc-hangs")
	n.until("no runc hangs", 10*time.Second, func() bool { return hung(n.b) == 0 })
}

// hung returns the runc that hangs, or 0.
func hung(b *bed.Bed) int {
	for pid := range b.Processes() {
		line, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		if string(line) == "sleep\x001000\x00" {
			return pid
		}
	}
	return 0
}

// containerdHangs: the daemon says so within 15 s, kills nothing, and goes on
// when containerd does.
func (n *faultNode) containerdHangs() {
	n.write("victim", "Always", "[/podtool, sleep, forever]")
	n.ready("victim", 20*time.Second)
	before := n.running()
	if !n.healthy() {
		n.Error("unhealthy before anything happened")
	}
	must(n.T, n.b.Stop())
	defer func() { _ = n.b.Cont() }()
	n.until("the daemon is unhealthy", 15*time.Second, func() bool { return !n.healthy() })
	n.write("late", "Always", "[/podtool, sleep, forever]")
	must(n.T, n.b.Cont())
	n.until("the daemon is healthy", 10*time.Second, n.healthy)
	n.ready("late", 20*time.Second)
	now := n.running()
	for id, mark := range before {
		if now[id] != mark {
			n.Errorf("container %s was %q and is %q", id, mark, now[id])
		}
	}
}

// dataLost: with containerd's database gone, what ran is ended before the pod
// runs again, and it does so once its image is back.
func (n *faultNode) dataLost() {
	n.write("victim", "Always", "[/podtool, sleep, forever, data-lost]")
	n.ready("victim", 20*time.Second)
	most, stop := n.most("data-lost")
	must(n.T, n.b.Kill())
	metas, err := filepath.Glob(filepath.Join(n.b.Dir(), "root", "io.containerd.metadata*", "meta.db"))
	must(n.T, err)
	for _, f := range metas {
		must(n.T, os.Remove(f))
	}
	must(n.T, n.b.StartAgain(n.ctx))
	p := n.await("victim", "waiting for its image", 20*time.Second, waitingFor("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"))
	if last := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.ExitCode != 137 || last.Reason != "ContainerStatusUnknown" {
		n.Errorf("the lost container ended with %+v, want 137 and ContainerStatusUnknown", last)
	}
	must(n.T, n.b.Import(n.ctx))
	n.ready("victim", 60*time.Second)
	n.ready("bystander", 60*time.Second)
	stop()
	if m := most(); m != 1 {
		n.Errorf("up to %d copies of one container ran at a time, want 1", m)
	}
	n.oneRuns("data-lost")
	// The bystander's container is another one now, too, and what was planted in
	// the database is lost: the node is held against one without them.
	n.bystander = nil
	must(n.T, n.a.RemoveManifests())
	must(n.T, n.a.Restart(n.ctx)) // which looks at all files at once
	must(n.T, n.b.WaitSame(n.ctx, n.empty, "container", "image", "content"))
	left, err := n.b.Snapshot(n.ctx)
	must(n.T, err)
	for k := range left {
		if strings.HasPrefix(k, "container ") {
			n.Errorf("left: %s", k)
		}
	}
}

// most counts how many processes with the mark run at a time, until stopped.
func (n *faultNode) most(mark string) (most func() int64, stop func()) {
	ctx, cancel := context.WithCancel(n.ctx)
	var seen atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			seen.Store(max(seen.Load(), int64(len(n.podtools(mark)))))
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return seen.Load, func() { cancel(); <-done }
}
