package cgroups

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// oomGroupTree is a tree with systemd's driver over a plain directory, with a pod.
func oomGroupTree(t *testing.T, c Config) (tree *Tree, k *plainKernel, podDir string) {
	t.Helper()
	k = &plainKernel{dir: t.TempDir(), files: map[string]string{oomGroupFile: "0\n"}}
	for name, value := range map[string]string{"cgroup.subtree_control": "", "cgroup.controllers": "memory"} {
		writeNew(t, filepath.Join(k.dir, name), value)
	}
	c.Mountpoint, c.Driver, c.Require, c.Kernel, c.Dial, c.HugepagesDir = k.dir, Systemd, []string{}, k, dialed(newUnits()), "/none"
	k.files["memory.max"] = "max\n"
	tree, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.EnsureNode(t.Context(), pod.Resources{CPUShares: 1024, CPUWeight: 39}); err != nil {
		t.Fatal(err)
	}
	return tree, k, ensureBare(t, tree, someUID)
}

func ensureBare(t *testing.T, tree *Tree, uid types.UID) string {
	t.Helper()
	parent, err := tree.EnsurePod(t.Context(), uid, corev1.PodQOSBurstable, pod.Resources{CPUShares: 2, CPUWeight: 1})
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(tree.unified, parent)
}

// scope makes the cgroup of a container as systemd does, and returns its file.
func scope(t *testing.T, podDir, name string) string {
	t.Helper()
	dir := filepath.Join(podDir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, oomGroupFile)
	writeNew(t, file, "0\n")
	return file
}

// systemd writes 0 into the file of a container's scope, and Run the 1 again: of a
// container that was there before it and of a later one, each time, and of no
// other cgroup.
func TestRunKeepsOOMGroup(t *testing.T) {
	seen := make(chan Change, 100)
	tree, _, podDir := oomGroupTree(t, Config{OOMGroup: true, OnChange: func(c Change) { seen <- c }})
	early, foreign := scope(t, podDir, "cri-containerd-early.scope"), scope(t, podDir, "foreign.scope")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- tree.Run(ctx) }()
	wantSoon(t, early, "1")
	late := scope(t, ensureBare(t, tree, "later"), "cri-containerd-late.scope")
	for range 3 {
		for _, file := range []string{early, late} {
			wantSoon(t, file, "1")
			writeNew(t, file, "0\n")
		}
	}
	wantSoon(t, early, "1")
	wantSoon(t, late, "1")
	for _, file := range []string{foreign, filepath.Join(podDir, oomGroupFile)} {
		if got := readString(t, file); got != "0" {
			t.Errorf("%s is %s", file, got)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(seen) > 0 {
		t.Errorf("told of as a foreign change: %+v", <-seen)
	}
}

// What systemd took while nobody looked is put back by whoever looks next: a daemon
// that finds the pod, and the look at an interval. With singleProcessOOMKill
// nobody writes, nor where nothing was taken.
func TestOOMGroupWithoutWatch(t *testing.T) {
	tree, k, podDir := oomGroupTree(t, Config{OOMGroup: true})
	file := scope(t, podDir, "cri-containerd-a.scope")
	for name, look := range map[string]func(){
		"EnsurePod": func() { ensureBare(t, tree, someUID) },
		"RestoreLimits": func() {
			if changes, err := tree.RestoreLimits(t.Context()); err != nil || len(changes) > 0 || tree.Foreign() > 0 {
				t.Errorf("%+v, %v", changes, err)
			}
		},
	} {
		writeNew(t, file, "0\n")
		if look(); readString(t, file) != "1" {
			t.Errorf("after %s it is %s", name, readString(t, file))
		}
	}
	writeNew(t, file, "1\n") // as the kernel says it
	had := k.writes.Load()
	if _, err := tree.RestoreLimits(t.Context()); err != nil || k.writes.Load() != had {
		t.Errorf("what is there is written, and would be heard of without end: %v", err)
	}
	tree, _, podDir = oomGroupTree(t, Config{})
	file = scope(t, podDir, "cri-containerd-a.scope")
	ensureBare(t, tree, someUID)
	if changes, err := tree.RestoreLimits(t.Context()); err != nil || len(changes) > 0 || readString(t, file) != "0" {
		t.Errorf("%+v, %v, %s", changes, err, readString(t, file))
	}
}

func wantSoon(t *testing.T, file, want string) {
	t.Helper()
	for ctx := within(t, 10*time.Second); readString(t, file) != want; {
		if err := pause(ctx, time.Millisecond); err != nil {
			t.Fatalf("%s is %s, want %s", file, readString(t, file), want)
		}
	}
}
