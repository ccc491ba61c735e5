package cgroups

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/test/need"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Somebody lifts a running pod's limits: they come back, the processes stay.
func TestRestoreLimitsV1(t *testing.T) {
	need.Have(t, need.CgroupV1)
	tree := realTree(t)
	parent, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSBurstable, limits(250, 50000, 64<<20, 100))
	if err != nil {
		t.Fatal(err)
	}
	cmd := script(t, tree, parent+"/c", `echo ready; sleep 1000`)
	if changes, err := tree.RestoreLimits(t.Context()); err != nil || len(changes) != 0 {
		t.Fatalf("nothing was changed, yet: %+v, %v", changes, err)
	}
	writeFile(t, filepath.Join(tree.dir("memory", parent), "memory.limit_in_bytes"), "-1")
	writeFile(t, filepath.Join(tree.dir("pids", parent), "pids.max"), "max")
	writeFile(t, filepath.Join(tree.dir("cpu", parent), "cpu.cfs_quota_us"), "-1")
	writeFile(t, filepath.Join(tree.dir("cpu", tree.class(corev1.PodQOSBurstable)), "cpu.shares"), "9999")
	changes, err := tree.RestoreLimits(t.Context())
	if err != nil || len(changes) != 4 || tree.Foreign() != 4 {
		t.Errorf("%d foreign: %+v, %v", tree.Foreign(), changes, err)
	}
	wantFiles(t, tree, parent, map[string]string{
		"memory/memory.limit_in_bytes": "67108864", "pids/pids.max": "100", "cpu/cpu.cfs_quota_us": "50000",
	})
	wantFiles(t, tree, tree.class(corev1.PodQOSBurstable), map[string]string{"cpu/cpu.shares": "256"})
	if pids, _ := processes(tree.existing(parent)); len(pids) == 0 || cmd.Process.Signal(syscall.Signal(0)) != nil {
		t.Error("the processes are gone")
	}

	// A pod that is gone is not made again, and no error.
	if err := tree.RemovePod(within(t, 10*time.Second), someUID); err != nil {
		t.Fatal(err)
	}
	if changes, err := tree.RestoreLimits(t.Context()); err != nil || len(changes) != 0 || len(left(tree, parent)) != 0 {
		t.Errorf("after the removal: %+v, %v, %v", changes, err, left(tree, parent))
	}
}

// A limit that cannot be put back, since more is in use, is reported each time.
func TestRestoreLimitsBelowUsage(t *testing.T) {
	tree := realTree(t)
	parent, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSBurstable, limits(0, 0, 4<<20, 0))
	if err != nil {
		t.Fatal(err)
	}
	lifted := "-1"
	if tree.V2() {
		lifted = "max"
	}
	writeFile(t, memoryFile(tree, parent), lifted)
	script(t, tree, parent+"/c", holds20MB)
	for range 2 {
		if changes, err := tree.RestoreLimits(t.Context()); err == nil || len(changes) != 1 || changes[0].Err == nil {
			t.Errorf("%+v, %v", changes, err)
		}
	}
}

// Run hears of a foreign write from the kernel, of pods that were there before
// it and of later ones, and ends with its context.
func TestRunHearsOfWrites(t *testing.T) {
	trees(t, func(t *testing.T, tree *Tree) {
		seen := make(chan Change, 100)
		tree.onChange = func(c Change) { seen <- c }
		limit, wrong := "pids.max", "8"
		if !tree.hasController("pids") {
			need.Have(t, need.HugetlbV2)
			limit, wrong = "hugetlb.2MB.max", "2097152"
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		before, err := tree.EnsurePod(ctx, "before", corev1.PodQOSBurstable, limits(250, 0, 0, 7))
		if err != nil {
			t.Fatal(err)
		}
		go func() { done <- tree.Run(ctx) }()
		awaitWatch(t, tree)
		after, err := tree.EnsurePod(ctx, "after", corev1.PodQOSBestEffort, limits(0, 0, 0, 7))
		if err != nil {
			t.Fatal(err)
		}
		for _, cgroup := range []string{before, after} {
			file := filepath.Join(tree.dir(strings.Split(limit, ".")[0], cgroup), limit)
			was := readString(t, file)
			writeFile(t, file, wrong)
			select {
			case c := <-seen:
				if c.Cgroup != cgroup || c.File != limit || c.Got != wrong || c.Err != nil {
					t.Errorf("%+v", c)
				}
			case <-within(t, 10*time.Second).Done():
				t.Fatalf("a write to %s was not noticed", file)
			}
			if got := readString(t, file); got != was {
				t.Errorf("%s is %s, want %s", file, got, was)
			}
		}
		if err := tree.RemovePod(ctx, "before"); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for len(seen) > 0 {
			t.Errorf("the tree's own change was taken for a foreign one: %+v", <-seen)
		}
		if tree.watch != nil {
			t.Error("the watch outlives Run")
		}
	})
}

func awaitWatch(t *testing.T, tree *Tree) {
	t.Helper()
	for ctx := within(t, 10*time.Second); ; {
		tree.mu.Lock()
		w := tree.watch
		tree.mu.Unlock()
		if w != nil {
			w.mu.Lock()
			n := len(w.targets)
			w.mu.Unlock()
			if n >= 4 {
				return
			}
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
}

// Without a watch the tree looks at an interval.
func TestLook(t *testing.T) {
	var mu sync.Mutex
	var seen []Change
	tree := realTree(t, func(c *Config) {
		c.OnChange = func(c Change) { mu.Lock(); seen = append(seen, c); mu.Unlock() }
	})
	parent, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSBurstable, limits(250, 0, 0, 7))
	if err != nil {
		t.Fatal(err)
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(seen) }
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- tree.look(ctx, 5*time.Second) }()
		synctest.Wait()
		writeFile(t, filepath.Join(tree.dir("pids", parent), "pids.max"), "8")
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if n := count(); n != 0 {
			t.Errorf("%d changes too early", n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := count(); n != 1 || seen[0].Want != "7" || seen[0].Got != "8" || seen[0].Cgroup != parent {
			t.Errorf("%d changes: %+v", n, seen)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	wantFiles(t, tree, parent, map[string]string{"pids/pids.max": "7"})
}

// FuzzEvents: no bytes from a descriptor make the parser fail.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00pids.max\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\xff\xff\xff\xff\x00\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		w := &watch{targets: map[int32]target{1: {class: "/a"}}}
		written, _ := w.events(b)
		for to := range written {
			if to.class != "/a" {
				t.Errorf("%+v", to)
			}
		}
	})
}

// Many pods come and go at once, beside the restorer.
func TestManyAtOnce(t *testing.T) {
	trees(t, func(t *testing.T, tree *Tree) {
		ctx := within(t, 60*time.Second)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				uid := types.UID("uid-" + string(rune('a'+i)))
				for range 5 {
					parent, err := tree.EnsurePod(ctx, uid, corev1.PodQOSBurstable, limits(100, 0, 0, 10))
					if err != nil {
						t.Error(err)
						return
					}
					for _, d := range tree.existing(parent) { // as runc would
						_ = linux{}.Mkdir(d.path + "/c")
					}
					if err := tree.RemovePod(ctx, uid); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		stop := make(chan struct{})
		restorer := make(chan struct{})
		go func() {
			defer close(restorer)
			for {
				select {
				case <-stop:
					return
				default:
				}
				changes, err := tree.RestoreLimits(ctx)
				if err != nil || len(changes) > 0 {
					t.Errorf("%+v, %v", changes, err)
				}
			}
		}()
		wg.Wait()
		close(stop)
		<-restorer
		if pods, err := tree.Pods(ctx); err != nil || len(pods) > 0 {
			t.Errorf("left: %v, %v", pods, err)
		}
		if r := tree.requestOf(tree.class(corev1.PodQOSBurstable)); r != 0 {
			t.Errorf("the burstable class still has the shares of %dm", r)
		}
	})
}
