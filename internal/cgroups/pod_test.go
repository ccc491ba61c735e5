package cgroups

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
	"nodeagent/internal/test/need"
)

func limits(milli int64, quota, memory int64, pids int64) pod.Resources {
	r := pod.BurstableResources(milli)
	if quota > 0 {
		r.CPUQuota, r.CPUPeriod = &quota, pod.DefaultCPUPeriod
	}
	if memory > 0 {
		r.Memory = &memory
	}
	r.Pids = pids
	return r
}

// wantFiles checks control files of a pod by controller/file.
func wantFiles(t *testing.T, tree *Tree, cgroup string, want map[string]string) {
	t.Helper()
	for name, value := range want {
		controller, file, _ := strings.Cut(name, "/")
		if got := readString(t, filepath.Join(tree.dir(controller, cgroup), file)); got != value {
			t.Errorf("%s of %s is %q, want %q", file, cgroup, got, value)
		}
	}
}

// wantEither is wantFiles for tests of both versions: what v1's files say, or v2's.
func wantEither(t *testing.T, tree *Tree, cgroup string, v1, v2 map[string]string) {
	t.Helper()
	if tree.V2() {
		wantFiles(t, tree, cgroup, v2)
	} else {
		wantFiles(t, tree, cgroup, v1)
	}
}

// memoryFile is where a cgroup's limit on memory is.
func memoryFile(tree *Tree, cgroup string) string {
	name := "memory.limit_in_bytes"
	if tree.V2() {
		name = "memory.max"
	}
	return filepath.Join(tree.dir("memory", cgroup), name)
}

func TestEnsurePodV1(t *testing.T) {
	need.Have(t, need.CgroupV1)
	tree := realTree(t)
	parent, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSBurstable, limits(250, 50000, 64<<20, 100))
	if err != nil {
		t.Fatal(err)
	}
	if want := tree.root + "/kubepods/burstable/pod" + string(someUID); parent != want {
		t.Errorf("parent is %s, want %s", parent, want)
	}
	asked := map[string]string{
		"cpu/cpu.shares":               "256",
		"cpu/cpu.cfs_quota_us":         "50000",
		"cpu/cpu.cfs_period_us":        "100000",
		"memory/memory.limit_in_bytes": "67108864",
		"pids/pids.max":                "100",
	}
	wantFiles(t, tree, parent, asked)
	wantFiles(t, tree, tree.class(corev1.PodQOSBurstable), map[string]string{"cpu/cpu.shares": "256"})
	wantFiles(t, tree, tree.class(corev1.PodQOSBestEffort), map[string]string{"cpu/cpu.shares": "2"})
	wantFiles(t, tree, tree.kubepods(), map[string]string{"cpu/cpu.shares": "2048"})

	// Again, after somebody changed all of it: the same, period and quota too.
	for file, value := range map[string]string{"cpu.shares": "3", "cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "50000"} {
		writeFile(t, filepath.Join(tree.dir("cpu", parent), file), value)
	}
	if _, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSBurstable, limits(250, 50000, 64<<20, 100)); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, tree, parent, asked)

	// No limits any more.
	if _, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSBurstable, limits(0, 0, 0, 0)); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, tree, parent, map[string]string{
		"cpu/cpu.shares":               "2",
		"cpu/cpu.cfs_quota_us":         "-1",
		"memory/memory.limit_in_bytes": "9223372036854771712",
		"pids/pids.max":                "max",
	})
	if err := tree.RemovePod(t.Context(), someUID); err != nil {
		t.Fatal(err)
	}
	if dirs := left(tree, parent); dirs != nil {
		t.Errorf("left: %v", dirs)
	}
	wantFiles(t, tree, tree.class(corev1.PodQOSBurstable), map[string]string{"cpu/cpu.shares": "2"})
}

// The same on v2, and what a process then meets.
func TestEnsurePodV2(t *testing.T) {
	need.Have(t, need.CgroupV2)
	tree := realTree(t)
	parent, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSBurstable, limits(250, 50000, 8<<20, 100))
	if err != nil {
		t.Fatal(err)
	}
	asked := map[string]string{
		"cpu/cpu.weight": "10", "cpu/cpu.max": "50000 100000", "memory/memory.max": "8388608", "pids/pids.max": "100",
	}
	wantFiles(t, tree, parent, asked)
	wantFiles(t, tree, tree.class(corev1.PodQOSBurstable), map[string]string{"cpu/cpu.weight": "10"})
	wantFiles(t, tree, tree.class(corev1.PodQOSBestEffort), map[string]string{"cpu/cpu.weight": "1"})
	for file, value := range map[string]string{"cpu.weight": "3", "cpu.max": "max", "memory.max": "max"} {
		writeFile(t, filepath.Join(tree.dir("cpu", parent), file), value)
	}
	if changes, err := tree.RestoreLimits(t.Context()); err != nil || len(changes) != 3 {
		t.Errorf("%+v, %v", changes, err)
	}
	wantFiles(t, tree, parent, asked)

	script(t, tree, parent+"/c", eater)
	if err := awaitUnpopulated(within(t, need.Slow(30*time.Second)), filepath.Join(tree.dir("memory", parent), "cgroup.events")); err != nil {
		t.Fatal(err)
	}
	f, err := tree.Facts(t.Context(), parent)
	if err != nil || len(f.Missed) > 0 || f.OOM.Kills == 0 || f.Usage.CPUNanos == 0 || *f.Limits.MemoryMax != 8<<20 || *f.Limits.CPUWeight != 10 {
		t.Errorf("facts %+v, %v", f, err)
	}
	if _, err := os.ReadFile("/proc/pressure/memory"); err != nil {
		t.Logf("the kernel tells no pressure: %v", err)
		return
	}
	for _, what := range []string{"cpu", "memory", "io"} {
		if _, ok := f.Pressure[what]; !ok {
			t.Errorf("the kernel tells pressure, but that on %s was not read: %+v", what, f.Pressure)
		}
	}
}

// The extreme values that a manifest can ask for are ones that the kernel takes.
func TestEnsurePodTakesExtremes(t *testing.T) {
	tree := realTree(t)
	r := pod.Limits{}.Pod(&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Resources: resources("cpu", "9000000000000", "memory", "7Ei"),
	}}}})
	parent, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSGuaranteed, r)
	if err != nil {
		t.Fatal(err)
	}
	wantEither(t, tree, parent,
		map[string]string{"cpu/cpu.shares": "262144", "cpu/cpu.cfs_quota_us": "17592186044415"},
		map[string]string{"cpu/cpu.weight": "10000", "cpu/cpu.max": "17592186044415 100000"})
	small := pod.Limits{}.Pod(&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Resources: resources("cpu", "1m", "memory", "1"),
	}}}})
	if _, err := tree.EnsurePod(t.Context(), "small", corev1.PodQOSGuaranteed, small); err != nil {
		t.Fatal(err)
	}
}

// A class that vanished is made again, with its shares, on the way to a pod.
func TestEnsurePodMakesTheClassAgain(t *testing.T) {
	tree := realTree(t)
	class := tree.class(corev1.PodQOSBestEffort)
	for _, h := range tree.hierarchies {
		_ = unix.Rmdir(filepath.Join(h.Dir, class))
	}
	if dirs := left(tree, class); dirs != nil {
		t.Fatalf("the class did not go: %v", dirs)
	}
	if _, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSBestEffort, limits(0, 0, 0, 0)); err != nil {
		t.Fatal(err)
	}
	wantEither(t, tree, class, map[string]string{"cpu/cpu.shares": "2"}, map[string]string{"cpu/cpu.weight": "1"})
}

// A limit below what is in use is refused; the old one stays.
func TestEnsurePodRefusesToShrinkBelowUsage(t *testing.T) {
	tree := realTree(t)
	parent, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSBurstable, limits(0, 0, 256<<20, 0))
	if err != nil {
		t.Fatal(err)
	}
	script(t, tree, parent+"/c", holds20MB)
	_, err = tree.EnsurePod(t.Context(), someUID, corev1.PodQOSBurstable, limits(0, 0, 4<<20, 0))
	if !errors.Is(err, unix.EBUSY) {
		t.Fatalf("the limit was lowered below the usage: %v", err)
	}
	if got := readString(t, memoryFile(tree, parent)); got != "268435456" {
		t.Errorf("the limit is %s", got)
	}
}

// A new daemon takes the requests of running pods from the tree, as well as the
// kernel's unit allows: one of v2's weight is 26 shares.
func TestEnsureNodeKeepsTheSharesOfRunningPods(t *testing.T) {
	tree := realTree(t)
	for uid, milli := range map[types.UID]int64{"a": 1000, "b": 500} {
		if _, err := tree.EnsurePod(t.Context(), uid, corev1.PodQOSBurstable, limits(milli, 0, 0, 0)); err != nil {
			t.Fatal(err)
		}
	}
	has := func(shares, weight string) {
		t.Helper()
		wantEither(t, tree, tree.class(corev1.PodQOSBurstable),
			map[string]string{"cpu/cpu.shares": shares}, map[string]string{"cpu/cpu.weight": weight})
	}
	has("1536", "59")

	next, err := New(Config{Root: tree.root, Driver: Cgroupfs})
	if err != nil {
		t.Fatal(err)
	}
	if err := next.EnsureNode(t.Context(), limits(2000, 0, 0, 0)); err != nil {
		t.Fatal(err)
	}
	has("1536", "58")
	if _, err := next.EnsurePod(t.Context(), "a", corev1.PodQOSBurstable, limits(1000, 0, 0, 0)); err != nil {
		t.Fatal(err)
	}
	has("1536", "59")
	if err := next.RemovePod(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	has("1024", "39")
}

func TestEnsurePodBeforeEnsureNode(t *testing.T) {
	tree, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSBurstable, pod.Resources{}); err == nil {
		t.Error("a pod's cgroup was made before its parents had limits")
	}
}

func BenchmarkEnsurePod(b *testing.B) {
	tree := realTree(b)
	r := limits(250, 50000, 64<<20, 4096)
	b.ReportAllocs()
	var ensure, remove time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := tree.EnsurePod(b.Context(), someUID, corev1.PodQOSBurstable, r); err != nil {
			b.Fatal(err)
		}
		made := time.Now()
		ensure += made.Sub(start)
		if err := tree.RemovePod(b.Context(), someUID); err != nil {
			b.Fatal(err)
		}
		remove += time.Since(made)
	}
	b.ReportMetric(float64(ensure.Microseconds())/float64(b.N), "µs/ensure")
	b.ReportMetric(float64(remove.Microseconds())/float64(b.N), "µs/remove")
}

func BenchmarkRestoreLimits100(b *testing.B) {
	tree := realTree(b)
	for i := range 100 {
		uid := types.UID("uid-" + strconv.Itoa(i))
		if _, err := tree.EnsurePod(b.Context(), uid, corev1.PodQOSBurstable, limits(250, 50000, 64<<20, 4096)); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if changes, err := tree.RestoreLimits(b.Context()); err != nil || len(changes) > 0 {
			b.Fatal(changes, err)
		}
	}
}

func BenchmarkFacts(b *testing.B) {
	tree := realTree(b)
	parent, err := tree.EnsurePod(b.Context(), someUID, corev1.PodQOSBurstable, limits(250, 50000, 64<<20, 4096))
	if err != nil {
		b.Fatal(err)
	}
	script(b, tree, parent+"/c", "echo ready; sleep 1000")
	for b.Loop() {
		if _, err := tree.Facts(b.Context(), parent+"/c"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFigures(b *testing.B) {
	tree := realTree(b)
	parent, err := tree.EnsurePod(b.Context(), someUID, corev1.PodQOSBurstable, limits(250, 50000, 64<<20, 4096))
	if err != nil {
		b.Fatal(err)
	}
	script(b, tree, parent+"/c", "echo ready; read never")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tree.Figures(b.Context(), parent+"/c"); err != nil {
			b.Fatal(err)
		}
	}
}

// A UID that cannot name a cgroup never gets one, and so is removed.
func TestHostileUID(t *testing.T) {
	tree := realTree(t)
	for _, uid := range []types.UID{"", "../x", "a/../../../b", "a\nb", types.UID(strings.Repeat("a", 129))} {
		if parent, err := tree.EnsurePod(t.Context(), uid, corev1.PodQOSBurstable, limits(1, 0, 0, 0)); err == nil {
			t.Errorf("pod UID %q has the cgroup %s", uid, parent)
		}
		if err := tree.RemovePod(t.Context(), uid); err != nil {
			t.Errorf("remove pod UID %q: %v", uid, err)
		}
		if err := tree.KillPod(t.Context(), uid); err != nil {
			t.Errorf("kill pod UID %q: %v", uid, err)
		}
	}
	if pods, err := tree.Pods(t.Context()); err != nil || len(pods) > 0 {
		t.Errorf("%v, %v", pods, err)
	}
}
