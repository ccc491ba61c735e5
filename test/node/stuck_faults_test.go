package node

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/test/env"
	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
)

// TestStuckPods: pods whose runc hangs, whose shim is stopped and whose volume is on a
// server that never answers hold up no other pod, leave the node healthy, and each is
// told with what it waits for. With PODS=100 ("make soak") they are three of so many that
// are there, and as many others come and go.
func TestStuckPods(t *testing.T) {
	dir := t.TempDir()
	must(t, faultyRunc(t.Context(), dir))
	ctx, b, a := newNode(t, bed.Options{Path: dir}, bed.AgentOptions{})
	n := &faultNode{T: t, ctx: ctx, b: b, a: a}
	x := newCLI(t, ctx, b, a)
	times, part := 10, "nine tenths"
	if pods := int(env.Number(t, "PODS", 0)); pods >= 100 {
		times, part = pods, "99 %"
		n.crowd(pods - 3)
	}
	before := n.others(times)

	must(t, os.WriteFile(filepath.Join(dir, "hang-create"), []byte("stuck-forever"), 0o644))
	dead := deadServer(t)
	n.write("shim", "Always", "[/podtool, sleep, forever, stuck-shim]")
	n.ready("shim", faultLimit)
	n.oneRuns("stuck-shim")
	stopped := n.shimOf("stuck-shim")
	must(t, unix.Kill(stopped, unix.SIGSTOP))
	t.Cleanup(func() { _ = unix.Kill(stopped, unix.SIGCONT) }) // or nobody can end it
	began := time.Now()
	n.write("runc", "Always", "[/podtool, sleep, stuck-forever]")
	must(t, a.WriteManifest("volume", manifest("volume", "  volumes: [{name: v, hostPath: {path: "+dead+", type: Directory}}]\n"+
		spec("", "command: [/podtool, sleep, forever]\nvolumeMounts: [{name: v, mountPath: /v}]"))))
	must(t, a.RemoveManifest("shim"))
	n.until("runc hangs", faultLimit, func() bool { return hung(b) != 0 })

	after := n.others(times)
	t.Logf("figure: of %d pods beside three that are stuck, %s came in %.2f s and went in %.2f s; without these %.2f s and %.2f s",
		times, part, after.came.Seconds(), after.went.Seconds(), before.came.Seconds(), before.went.Seconds())
	if most := need.Slow(time.Second); after.came > before.came+most || after.went > before.went+most {
		t.Errorf("beside three stuck pods others come in %s and go in %s, without in %s and %s", after.came, after.went, before.came, before.went)
	}
	if !n.healthy() {
		t.Error("the node is unhealthy because of pods that are stuck")
	}
	want := map[string]func(explanation) bool{
		"runc": func(x explanation) bool {
			return strings.Contains(x.Summary, "blocked at start") && strings.Contains(x.Blocks.Detail, "something hangs")
		},
		"shim": func(x explanation) bool {
			return strings.Contains(x.Summary, "blocked at stop") && strings.Contains(x.Blocks.Detail, "something hangs")
		},
		"volume": func(x explanation) bool { // by turns
			return strings.Contains(x.Summary, dead+": it does not answer") || strings.Contains(x.Summary, dead+": an earlier look at it hangs")
		},
	}
	for len(want) > 0 && time.Since(began) < need.Slow(30*time.Second) {
		for name, told := range want {
			r := x.run(t, "explain", "pod", name, "-o", "json") // once: a pod may be gone when it is asked for again
			if name == "shim" && r.code == exitNotFound {
				t.Logf("figure: a shim that does not answer is given up, and its pod is gone, after %.1f s", time.Since(began).Seconds())
				delete(want, name)
				continue
			}
			var said explanation
			r.document(t, "PodExplanation", &said)
			if said.Blocks != nil && told(said) {
				t.Logf("figure: after %.1f s: %s", time.Since(began).Seconds(), said.Summary)
				delete(want, name)
			}
		}
		bed.Pause(ctx, 100*time.Millisecond)
	}
	for name := range want {
		out, err := a.CLI(ctx, "explain", "pod", name)
		t.Errorf("after 30 s it is not said of pod %s what it waits for: %s%v", name, out, err)
	}
}

// exitNotFound is how the command line says that there is no such pod.
const exitNotFound = 6

// times are how long pods take to run and to go, of most of them.
type times struct{ came, went time.Duration }

// crowd makes pods that stay.
func (n *faultNode) crowd(count int) {
	n.Helper()
	for i := range count {
		n.write(fmt.Sprint("crowd", i), "Always", "[/podtool, sleep, forever]")
	}
	must(n.T, n.a.WaitPods(n.ctx, func(pods map[string]*corev1.Pod) bool {
		ready := 0
		for _, p := range pods {
			if bed.Ready(p) {
				ready++
			}
		}
		return ready >= count
	}))
}

// others makes pods, one after another, and removes them.
func (n *faultNode) others(count int) (most times) {
	n.Helper()
	var came, went []time.Duration
	for i := range count {
		name := fmt.Sprintf("other%d", i)
		began := time.Now()
		n.write(name, "Always", "[/podtool, sleep, forever]")
		must(n.T, n.a.WaitPods(n.ctx, func(pods map[string]*corev1.Pod) bool {
			p := pods["default/"+name+"-node"]
			return p != nil && bed.Ready(p)
		}))
		came = append(came, time.Since(began))
		must(n.T, n.b.WaitCatches(n.ctx, "podtool", int(unix.SIGTERM))) // or it takes the whole grace period
		began = time.Now()
		must(n.T, n.a.RemoveManifest(name))
		must(n.T, n.a.WaitGone(n.ctx, "default/"+name+"-node"))
		went = append(went, time.Since(began))
	}
	slices.Sort(came)
	slices.Sort(went)
	share := count - max(count/100, 1) - 1 // but for one in a hundred, or in less
	return times{came[share], went[share]}
}

// deadServer is a directory of a server that never answers.
func deadServer(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	must(t, unix.Mount("dead", dir, "fuse.dead", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)))
	t.Cleanup(func() {
		_ = unix.Close(fd) // until then whoever looks there hangs
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	})
	return dir
}

// shimOf is the process that is the parent of a container's process with the mark.
func (n *faultNode) shimOf(mark string) int {
	n.Helper()
	pids := n.podtools(mark)
	if len(pids) != 1 {
		n.Fatalf("the processes with the mark %s are %v", mark, pids)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pids[0]))
	must(n.T, err)
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "PPid:"); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(v))
			must(n.T, err)
			return pid
		}
	}
	n.Fatalf("process %d has no parent", pids[0])
	return 0
}
