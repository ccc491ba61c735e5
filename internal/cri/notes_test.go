package cri_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"nodeagent/internal/pod"
	"nodeagent/internal/shimapi"
	"nodeagent/test/bed"
)

// TestNotes: what is noted of a stop and of a postStart hook outlives the daemon, may
// only become less, and what a stop says counts over it until the signal was sent.
func TestNotes(t *testing.T) {
	n := newNode(t, bed.Options{})
	config := n.sandboxConfig("p1")
	sb := n.runSandbox(config)
	c := containerConfig("main", 0, "sleep", "forever")
	c.Annotations = map[string]string{pod.AnnotationPostStart: "true"}
	c.Labels[pod.LabelInit], c.Labels[pod.LabelPreStop] = "3", `{"sleep":{"seconds":1}}`
	id := n.runContainer(sb, c, config)
	again := func() pod.Container {
		t.Helper()
		n.stop()
		n.start()
		got, ok := find(n.Observe("p1"), id)
		if !ok {
			t.Fatal("the container is gone")
		}
		return got
	}
	if got := again(); !got.PostStart || got.Sidecar != 3 || !got.Init || got.PreStop == "" || !got.Stop.By.IsZero() {
		t.Errorf("adopted as %+v", got)
	}
	check(t, n.NotePostStart(t.Context(), id))
	check(t, n.NoteStop(t.Context(), id, 20*time.Second, false, true))
	check(t, n.NoteStop(t.Context(), id, time.Hour, true, false))
	got := again()
	left := time.Until(got.Stop.By)
	if got.PostStart || !got.Stop.Hooked || !got.Stop.Again || left > 20*time.Second || left < 0 {
		t.Errorf("adopted as %+v, with %s left", got, left)
	}
	check(t, n.StopContainer(t.Context(), id, 30*time.Second))
	if end := again(); end.State != pod.ContainerExited || !end.Stop.Again {
		t.Errorf("ended as %+v", end)
	}
	n.removePod("p1", 0)
	if left, err := os.ReadDir(filepath.Join(n.cfg.RunDir, "stop")); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// TestShimEndsWithItsPod: once a pod has ended and its sandbox is stopped, no process of
// it is left; how its containers ended is on their records, also for the next daemon.
func TestShimEndsWithItsPod(t *testing.T) {
	n := newNode(t, bed.Options{})
	config := n.sandboxConfig("p1")
	sb := n.runSandbox(config)
	one := n.runContainer(sb, containerConfig("one", 0, "exit", "3"), config)
	two := n.runContainer(sb, containerConfig("two", 0, "sleep", "forever"), config)
	n.awaitExit("p1", one, 10*time.Second)
	check(t, n.StopContainer(t.Context(), two, 5*time.Second))
	check(t, n.StopPodSandbox(t.Context(), sb))
	deadline := time.Now().Add(20 * time.Second)
	for shims := []string{sb}; len(shims) > 0; {
		var err error
		shims, err = shimapi.ListShims(n.cfg.RunDir)
		check(t, err)
		if time.Now().After(deadline) {
			t.Fatalf("these shims are left: %v", shims)
		}
		<-time.After(10 * time.Millisecond)
	}
	n.stop()
	n.start()
	s := n.Observe("p1")
	if c, _ := find(s, one); c.State != pod.ContainerExited || c.ExitCode != 3 {
		t.Errorf("one is %+v", c)
	}
	if c, _ := find(s, two); c.State != pod.ContainerExited {
		t.Errorf("two is %+v", c)
	}
	check(t, n.StopPodSandbox(t.Context(), sb)) // of the next daemon, who does not know
	n.removePod("p1", 0)
}
