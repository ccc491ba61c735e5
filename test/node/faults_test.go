package node

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// onePod returns a manifest of a pod with one container that runs the command.
func onePod(name, policy, command string) string {
	return manifest(name, "  restartPolicy: "+policy+"\n  terminationGracePeriodSeconds: 2\n  containers:\n  - name: app\n    image: "+
		image.Example+"\n    command: "+command+"\n")
}

// terminatedState returns how the only container of the pod ended, or nil.
func terminatedState(p *corev1.Pod) *corev1.ContainerStateTerminated {
	if p == nil || len(p.Status.ContainerStatuses) != 1 {
		return nil
	}
	return p.Status.ContainerStatuses[0].State.Terminated
}

// TestExitIsNeverLost: a container exits with 7 while the daemon, containerd or
// both are dead, and containerd comes back first. 7 is reported, and a pod that
// never restarts is not run again.
func TestExitIsNeverLost(t *testing.T) {
	ctx, b, a := newNode(t, bed.Options{}, bed.AgentOptions{})
	for _, dead := range []string{"daemon", "containerd", "both"} {
		t.Run(dead, func(t *testing.T) {
			if err := a.WriteManifest("once", onePod("once", "Never", `[/podtool, exit, "7", forever]`)); err != nil {
				t.Fatal(err)
			}
			must(t, a.WaitPhase(ctx, "default/once-node", corev1.PodRunning))
			within(t, ctx, time.Minute, func() bool { return heedTerm(podtools(b)) })
			if dead != "containerd" {
				must(t, a.Kill())
			}
			if dead != "daemon" {
				must(t, b.Kill())
			}
			for _, pid := range podtools(b) {
				must(t, unix.Kill(pid, unix.SIGTERM))
			}
			exits := filepath.Join(a.RunDir(), "exit")
			if dead == "containerd" {
				exits = "" // the daemon may take the record at once
			}
			waitForExit(t, ctx, b, exits)
			if dead != "daemon" {
				must(t, b.StartAgain(ctx))
			}
			if dead != "containerd" {
				must(t, a.Start(ctx))
			}
			var last *corev1.Pod
			err := a.WaitPods(ctx, func(pods map[string]*corev1.Pod) bool {
				last = pods["default/once-node"]
				return last != nil && last.Status.Phase == corev1.PodFailed
			})
			if err != nil {
				t.Fatal(err)
			}
			if s := terminatedState(last); s == nil || s.ExitCode != 7 || s.Reason != "Error" {
				t.Errorf("the container ended with %+v, want exit code 7", last.Status.ContainerStatuses)
			}
			if n := last.Status.ContainerStatuses[0].RestartCount; n != 0 {
				t.Errorf("a pod that never restarts was restarted %d times", n)
			}
			must(t, a.RemoveManifest("once"))
			waitGone(t, ctx, a)
		})
	}
}

// podtools are the bed's processes that run it.
func podtools(b *bed.Bed) (pids []int) {
	for pid := range b.Processes() {
		if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); filepath.Base(exe) == "podtool" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// heedTerm tells whether there are processes, and all say by their names that SIGTERM
// ends them as they want: it is caught before that, by the language's runtime.
func heedTerm(pids []int) bool {
	for _, pid := range pids {
		if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); string(name) != "podtool-up\n" {
			return false
		}
	}
	return len(pids) > 0
}

// waitForExit waits until no podtool of the bed lives any more, and, where a
// directory of exit records is given, one is there.
func waitForExit(t *testing.T, ctx context.Context, b *bed.Bed, exits string) {
	t.Helper()
	for {
		alive := podtools(b)
		records, _ := os.ReadDir(exits)
		if len(alive) == 0 && (exits == "" || len(records) > 0) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal("the container did not end")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestRestartsTouchNothing: daemon and containerd are killed six times, in turn
// and together; no container notices.
func TestRestartsTouchNothing(t *testing.T) {
	ctx, b, a := newNode(t, bed.Options{}, bed.AgentOptions{})
	const pods = 20
	for i := range pods {
		must(t, a.WriteManifest(fmt.Sprintf("p%d", i), onePod(fmt.Sprintf("p%d", i), "Always", "[/podtool, sleep, forever]")))
	}
	must(t, a.WaitReadyPods(ctx, pods))
	before, err := b.Running(ctx)
	must(t, err)
	for i := range 6 {
		if i%3 != 1 {
			must(t, a.Kill())
		}
		if i%3 != 0 {
			must(t, b.Restart(ctx))
		}
		if i%3 != 1 {
			must(t, a.Start(ctx))
		}
		must(t, a.WaitReadyPods(ctx, pods))
	}
	after, err := b.Running(ctx)
	must(t, err)
	if !maps.Equal(before, after) {
		t.Errorf("containers changed:\nbefore %v\nafter  %v", before, after)
	}
}

// TestSecondDaemonLeaves: the second daemon of a run directory exits at once and
// names the first.
func TestSecondDaemonLeaves(t *testing.T) {
	ctx, _, a := newNode(t, bed.Options{}, bed.AgentOptions{})
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := a.CLI(ctx, "run")
	if err == nil || ctx.Err() != nil {
		t.Fatalf("a second daemon ran: %v\n%s", err, out)
	}
	if text := out + err.Error(); !strings.Contains(text, fmt.Sprintf("process %d", a.Pid)) {
		t.Errorf("the second daemon said %q, without the pid %d of the first", text, a.Pid)
	}
}

// TestOneStuckPodIsOneStuckPod: a runc that hangs for one image's containers
// holds up no other pod.
func TestOneStuckPodIsOneStuckPod(t *testing.T) {
	dir := t.TempDir()
	must(t, faultyRunc(t.Context(), dir))
	must(t, os.WriteFile(filepath.Join(dir, "hang-create"), []byte("stuck-forever"), 0o644))
	ctx, b, a := newNode(t, bed.Options{Path: dir}, bed.AgentOptions{})
	must(t, a.WriteManifest("stuck", onePod("stuck", "Always", "[/podtool, sleep, stuck-forever]")))
	for hung(b) == 0 {
		select {
		case <-ctx.Done():
			t.Fatal("runc does not hang: the test proves nothing")
		case <-time.After(10 * time.Millisecond):
		}
	}
	var others []string
	for i := range 12 { // more than are started at a time
		name := fmt.Sprintf("p%d", i)
		must(t, a.WriteManifest(name, onePod(name, "Always", "[/podtool, sleep, forever]")))
		others = append(others, "default/"+name+"-node")
	}
	err := a.WaitPods(ctx, func(pods map[string]*corev1.Pod) bool {
		ready := 0
		for name, p := range pods {
			if name != "default/stuck-node" && bed.Ready(p) {
				ready++
			}
		}
		return ready == 12
	})
	must(t, err)
	must(t, a.RemoveManifests())
	must(t, a.WaitGone(ctx, others...))
}

// TestPanicIsOnePods: a panic in one pod's step is that pod's failure.
func TestPanicIsOnePods(t *testing.T) {
	ctx, _, a := newNode(t, bed.Options{Variant: bed.Variant{Failpoints: true}}, bed.AgentOptions{})
	must(t, a.WriteManifest("other", onePod("other", "Always", "[/podtool, sleep, forever]")))
	must(t, a.WaitReadyPods(ctx, 1))
	must(t, a.Restart(ctx, "NODEAGENT_FAILPOINTS=worker/config:after=1*panic(test)->off"))
	pid := a.Pid
	must(t, a.WriteManifest("victim", onePod("victim", "Always", "[/podtool, sleep, forever]")))
	must(t, a.WaitReadyPods(ctx, 2))
	if a.Pid != pid || a.Signal(unix.Signal(0)) != nil {
		t.Error("the daemon died of one pod's panic")
	}
	log, err := os.ReadFile(a.Log())
	must(t, err)
	if !strings.Contains(string(log), "contain a panic") {
		t.Error("no panic was contained: the test proves nothing")
	}
}
