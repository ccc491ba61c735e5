package cgroups

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/test/need"
)

// trees are the kinds of real trees that this machine has.
func trees(t *testing.T, test func(t *testing.T, tree *Tree)) {
	t.Run("controllers", func(t *testing.T) { test(t, realTree(t)) })
	t.Run("unified", func(t *testing.T) { test(t, unifiedTree(t)) })
}

// What removal has to cope with: containers' cgroups that runc left in every
// hierarchy, cgroups in them, and processes in any of those that ignore
// signals, fork, or stand in only some of the hierarchies.
func TestRemovePod(t *testing.T) {
	for _, c := range []struct {
		name   string
		litter func(t *testing.T, tree *Tree, parent string)
	}{
		{"nothing", func(*testing.T, *Tree, string) {}},
		{"empty cgroups of containers", func(t *testing.T, tree *Tree, parent string) {
			for _, h := range tree.hierarchies {
				for _, c := range []string{"a", "b/c/d", "b/e"} {
					if err := os.MkdirAll(filepath.Join(h.Dir, parent, c), 0o755); err != nil {
						t.Fatal(err)
					}
				}
			}
		}},
		{"a process that ignores signals", func(t *testing.T, tree *Tree, parent string) {
			script(t, tree, parent+"/c", `trap "" TERM HUP INT; echo ready; while :; do sleep 1000; done`)
		}},
		{"processes below the container", func(t *testing.T, tree *Tree, parent string) {
			script(t, tree, parent+"/c", `echo ready; sleep 1000 & sleep 1000 & wait`)
			script(t, tree, parent+"/c/nested/deep", `echo ready; sleep 1000`)
		}},
		{"a process in the pod's own cgroup", func(t *testing.T, tree *Tree, parent string) {
			if tree.V2() && len(tree.enabled) > 0 {
				return // the kernel allows no process beside enabled controllers
			}
			script(t, tree, parent, `echo ready; sleep 1000`)
		}},
		{"forks without end", func(t *testing.T, tree *Tree, parent string) {
			script(t, tree, parent+"/c", `echo ready; while :; do sleep 1000 & done`)
		}},
		{"a stopped process", func(t *testing.T, tree *Tree, parent string) {
			cmd := script(t, tree, parent+"/c", `echo ready; sleep 1000`)
			_ = cmd.Process.Signal(unix.SIGSTOP)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			trees(t, func(t *testing.T, tree *Tree) {
				parent, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSBurstable, limits(100, 0, 0, 0))
				if err != nil {
					t.Fatal(err)
				}
				c.litter(t, tree, parent)
				if err := tree.RemovePod(within(t, 20*time.Second), someUID); err != nil {
					t.Fatal(err)
				}
				if dirs := left(tree, parent); dirs != nil {
					t.Errorf("left: %v", dirs)
				}
				if err := tree.RemovePod(t.Context(), someUID); err != nil {
					t.Errorf("the second removal: %v", err)
				}
			})
		})
	}
}

// On a hybrid machine runc joins the unified hierarchy too. A process that
// stands in that one only, or in one of v1 only, is found and ended.
func TestRemovePodFindsAProcessInOneHierarchy(t *testing.T) {
	need.Have(t, need.CgroupV1)
	tree := realTree(t)
	for _, h := range tree.hierarchies {
		parent, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSBurstable, limits(100, 0, 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		one := &Tree{hierarchies: []Hierarchy{h}}
		cmd := script(t, one, parent+"/c", `echo ready; sleep 1000`)
		if err := tree.RemovePod(within(t, 10*time.Second), someUID); err != nil {
			t.Fatalf("%s: %v", h.Dir, err)
		}
		if dirs := left(tree, parent); dirs != nil {
			t.Errorf("%s: left: %v", h.Dir, dirs)
		}
		if p, ok := readProcess("/proc", cmd.Process.Pid); ok && p.State != "Z" && p.State != "X" {
			t.Errorf("%s: the process is alive: %+v", h.Dir, p)
		}
	}
}

// A frozen process does not die on v1 until it is thawed; on v2 it does.
func TestRemovePodThaws(t *testing.T) {
	tree := realTree(t)
	parent, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSBurstable, limits(100, 0, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	script(t, tree, parent+"/c", `echo ready; sleep 1000`)
	if tree.V2() {
		writeFile(t, filepath.Join(tree.unified, parent, "c", "cgroup.freeze"), "1")
	} else {
		writeFile(t, filepath.Join(tree.dir("freezer", parent+"/c"), "freezer.state"), "FROZEN")
	}
	if err := tree.RemovePod(within(t, 10*time.Second), someUID); err != nil {
		t.Fatal(err)
	}
}

// A process that cannot end holds up its own pod only, until the time is over,
// and the error names it. Here the process is frozen by a cgroup above.
func TestRemovePodGivesUpInTime(t *testing.T) {
	tree := realTree(t)
	parent, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSBurstable, limits(100, 0, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	cmd := script(t, tree, parent+"/c", `echo ready; sleep 1000`)
	frozen := freezer(t, tree, cmd.Process.Pid)
	writeFile(t, frozen, "FROZEN")
	defer writeFile(t, frozen, "THAWED")

	err = tree.RemovePod(within(t, 50*time.Millisecond), someUID)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("err is %v, want the deadline", err)
	}
	if !strings.Contains(err.Error(), `("sh", state `) && !strings.Contains(err.Error(), `("sleep", state `) {
		t.Errorf("error %q does not name the process", err)
	}
	if _, err := tree.EnsurePod(t.Context(), "another", corev1.PodQOSBurstable, limits(100, 0, 0, 0)); err != nil {
		t.Errorf("another pod: %v", err)
	}
	if err := tree.RemovePod(t.Context(), "another"); err != nil {
		t.Errorf("another pod: %v", err)
	}
	writeFile(t, frozen, "THAWED")
	if err := tree.RemovePod(within(t, 10*time.Second), someUID); err != nil {
		t.Errorf("after the thaw: %v", err)
	}
}

// freezer is the state file of a cgroup of v1's freezer that a process is in and that
// is not of its pod. v2 has a freezer of its own, which lets a process die, and leaves
// the other to who mounts it.
func freezer(t *testing.T, tree *Tree, pid int) string {
	t.Helper()
	if !tree.V2() {
		return filepath.Join(tree.dir("freezer", tree.root), "freezer.state")
	}
	mountpoint := t.TempDir()
	if err := unix.Mount("cgroup", mountpoint, "cgroup", 0, "freezer"); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(mountpoint, filepath.Base(tree.root))
	t.Cleanup(func() {
		_ = unix.Rmdir(dir)
		if err := unix.Unmount(mountpoint, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid))
	return filepath.Join(dir, "freezer.state")
}

// The pod's siblings and foreign cgroups are not touched.
func TestRemovePodLeavesTheOthers(t *testing.T) {
	trees(t, func(t *testing.T, tree *Tree) {
		for _, uid := range []types.UID{"a", "ab"} {
			if _, err := tree.EnsurePod(t.Context(), uid, corev1.PodQOSBurstable, limits(100, 0, 0, 0)); err != nil {
				t.Fatal(err)
			}
		}
		other, _ := tree.PodPath("ab", corev1.PodQOSBurstable)
		cmd := script(t, tree, other+"/c", `echo ready; sleep 1000`)
		if err := tree.RemovePod(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if len(left(tree, other)) == 0 {
			t.Error("another pod's cgroup is gone")
		}
		if err := cmd.Process.Signal(unix.Signal(0)); err != nil {
			t.Errorf("another pod's process: %v", err)
		}
	})
}

func TestKillContainer(t *testing.T) {
	trees(t, func(t *testing.T, tree *Tree) {
		parent, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSGuaranteed, limits(100, 0, 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		a := script(t, tree, parent+"/a", `echo ready; sleep 1000`)
		b := script(t, tree, parent+"/b", `echo ready; sleep 1000`)
		if err := tree.KillContainer(within(t, 10*time.Second), parent, "a"); err != nil {
			t.Fatal(err)
		}
		if pids, _ := processes(tree.existing(parent + "/a")); len(pids) != 0 {
			t.Errorf("%v are left of container a (%d)", pids, a.Process.Pid)
		}
		if err := b.Process.Signal(unix.Signal(0)); err != nil {
			t.Errorf("container b: %v", err)
		}
		for _, id := range []string{"", ".", "..", "../..", "b/c", "b\x00"} {
			if err := tree.KillContainer(t.Context(), parent, id); err == nil {
				t.Errorf("container id %q was taken", id)
			}
		}
		if err := tree.KillContainer(t.Context(), parent, "none"); err != nil {
			t.Errorf("a container that is not there: %v", err)
		}
		if err := tree.KillPod(within(t, 10*time.Second), someUID); err != nil {
			t.Fatal(err)
		}
		if pids, _ := processes(tree.existing(parent)); len(pids) != 0 {
			t.Errorf("%v are left of the pod", pids)
		}
		// The pod lives on in its cgroup: nothing of the kill stays in it.
		if changes, err := tree.RestoreLimits(t.Context()); err != nil || len(changes) != 0 {
			t.Errorf("the kill left %+v, %v", changes, err)
		}
	})
}

// The agent does not kill itself, whatever somebody moved where. The agent is a
// process of its own here, so that the test outlives one that does.
func TestKillSparesTheAgent(t *testing.T) {
	if mountpoint := os.Getenv("NODEAGENT_TEST_KILLS"); mountpoint != "" {
		killsItself(t, mountpoint, os.Getenv("NODEAGENT_TEST_ROOT"))
		return
	}
	trees(t, func(t *testing.T, tree *Tree) {
		parent, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSGuaranteed, limits(100, 0, 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(tree.dir("pids", parent), "c"), 0o755); err != nil {
			t.Fatal(err)
		}
		agent := exec.CommandContext(within(t, need.Slow(20*time.Second)), os.Args[0], "-test.run=^TestKillSparesTheAgent$", "-test.v")
		agent.Env = append(os.Environ(), "NODEAGENT_TEST_KILLS="+tree.mountpoint, "NODEAGENT_TEST_ROOT="+tree.root)
		if out, err := agent.CombinedOutput(); err != nil {
			t.Errorf("the agent: %v\n%s", err, out)
		}
	})
}

// killsItself is an agent that somebody moved into a pod that it kills and removes.
func killsItself(t *testing.T, mountpoint, root string) {
	tree, err := New(Config{Mountpoint: mountpoint, Root: root, Driver: Cgroupfs, Require: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	parent := tree.podPath(someUID, corev1.PodQOSGuaranteed)
	dir := tree.dir("pids", parent)
	writeFile(t, filepath.Join(dir, "c", "cgroup.procs"), "0")
	forks := func() string {
		if !tree.hasController("pids") {
			return ""
		}
		return readString(t, filepath.Join(dir, "pids.max"))
	}
	before := forks()
	for what, end := range map[string]func() error{
		"kill":   func() error { return tree.KillPod(within(t, 5*time.Second), someUID) },
		"remove": func() error { return tree.RemovePod(within(t, 5*time.Second), someUID) },
	} {
		if err := end(); err == nil || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
			t.Errorf("%s: process %d was not missed: %v", what, os.Getpid(), err)
		}
	}
	if after := forks(); after != before {
		t.Errorf("pids.max was %s and is %s: the agent cannot fork any more", before, after)
	}
}

func TestPods(t *testing.T) {
	trees(t, func(t *testing.T, tree *Tree) {
		want := map[types.UID]corev1.PodQOSClass{
			"g-1": corev1.PodQOSGuaranteed, "b-1": corev1.PodQOSBurstable, "e-1": corev1.PodQOSBestEffort,
		}
		for uid, qos := range want {
			if _, err := tree.EnsurePod(t.Context(), uid, qos, limits(100, 0, 0, 0)); err != nil {
				t.Fatal(err)
			}
		}
		// An orphan in one hierarchy only, and strangers.
		last := tree.hierarchies[len(tree.hierarchies)-1].Dir
		for _, name := range []string{"podorphan", "stranger", "pod"} {
			if err := os.Mkdir(filepath.Join(last, tree.kubepods(), name), 0o755); err != nil {
				if os.IsNotExist(err) {
					err = os.MkdirAll(filepath.Join(last, tree.kubepods(), name), 0o755)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		want["orphan"] = corev1.PodQOSGuaranteed
		got, err := tree.Pods(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range got {
			if want[p.UID] != p.QOS {
				t.Errorf("pod %s is %s at %s", p.UID, p.QOS, p.Path)
			}
			delete(want, p.UID)
			if err := tree.RemovePod(t.Context(), p.UID); err != nil {
				t.Error(err)
			}
		}
		if len(want) > 0 {
			t.Errorf("not found: %v", want)
		}
		if got, err := tree.Pods(t.Context()); err != nil || len(got) != 0 {
			t.Errorf("after their removal: %v, %v", got, err)
		}
	})
}
