package cgroups_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/cgroups"
	"nodeagent/internal/cgroups/cgroupstest"
	"nodeagent/internal/pod"
	"nodeagent/internal/test/need"
)

// every controller that a v2 machine has, and one that is none of ours.
var controllers = []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"}

func unified(t *testing.T, root string) (*cgroups.Tree, *cgroupstest.Unified) {
	t.Helper()
	k := cgroupstest.NewUnified(t, controllers...)
	pages := filepath.Join(t.TempDir(), "hugepages")
	if err := os.MkdirAll(filepath.Join(pages, "hugepages-2048kB"), 0o755); err != nil {
		t.Fatal(err)
	}
	tree, err := cgroups.New(cgroups.Config{Mountpoint: k.Mountpoint, Root: root, Driver: cgroups.Cgroupfs, HugepagesDir: pages, Kernel: k})
	if err != nil {
		t.Fatal(err)
	}
	return tree, k
}

// The fake and the running kernel agree.
func TestKernel(t *testing.T) {
	t.Run("fake", func(t *testing.T) {
		k := cgroupstest.NewUnified(t, "hugetlb")
		testKernel(t, k, k.Mountpoint)
	})
	t.Run("real", func(t *testing.T) {
		need.Have(t, need.Root, need.HugetlbV2)
		mountpoint := "/sys/fs/cgroup/unified"
		if _, err := os.Stat(mountpoint); err != nil {
			need.Have(t, need.CgroupV2)
			mountpoint = "/sys/fs/cgroup"
		}
		testKernel(t, cgroups.RealKernel(), mountpoint)
	})
}

// A cgroup can be looked into by everybody, whatever the umask of the daemon.
func TestKernelModes(t *testing.T) {
	need.Have(t, need.Root)
	mountpoint := "/sys/fs/cgroup/unified"
	if _, err := os.Stat(mountpoint); err != nil {
		need.Have(t, need.CgroupV2)
		mountpoint = "/sys/fs/cgroup"
	}
	defer unix.Umask(unix.Umask(0o077))
	k, dir := cgroups.RealKernel(), filepath.Join(mountpoint, fmt.Sprintf("nodeagent-test-modes-%d", os.Getpid()))
	if err := k.Mkdir(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Rmdir(dir) })
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

func testKernel(t *testing.T, k cgroups.Kernel, mountpoint string) {
	hs, err := k.Hierarchies(mountpoint)
	if err != nil || len(hs) != 1 || !hs[0].Unified || hs[0].Dir != mountpoint {
		t.Fatalf("hierarchies: %+v, %v", hs, err)
	}
	a := filepath.Join(mountpoint, fmt.Sprintf("nodeagent-test-kernel-%d", os.Getpid()))
	b := filepath.Join(a, "b")
	is := func(what string, got, want error) {
		t.Helper()
		if !errors.Is(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	is("mkdir without its parent", k.Mkdir(b), unix.ENOENT)
	is("mkdir", k.Mkdir(a), nil)
	t.Cleanup(func() { _ = k.Rmdir(b); _ = k.Rmdir(a) })
	is("mkdir again", k.Mkdir(a), unix.EEXIST)
	is("mkdir below", k.Mkdir(b), nil)
	is("rmdir with a child", k.Rmdir(a), unix.EBUSY)
	is("enable what is not there", k.Write(filepath.Join(b, "cgroup.subtree_control"), "+hugetlb"), unix.ENOENT)
	is("enable", k.Write(filepath.Join(mountpoint, "cgroup.subtree_control"), "+hugetlb"), nil)
	is("enable below", k.Write(filepath.Join(a, "cgroup.subtree_control"), "+hugetlb"), nil)
	is("enable again", k.Write(filepath.Join(a, "cgroup.subtree_control"), "+hugetlb"), nil)
	if got, err := os.ReadFile(filepath.Join(b, "hugetlb.2MB.max")); err != nil || string(got) != "9223372036854771712\n" && string(got) != "max\n" {
		t.Errorf("the child has %q, %v", got, err)
	}
	is("limit", k.Write(filepath.Join(b, "hugetlb.2MB.max"), "0"), nil)
	if got, err := os.ReadFile(filepath.Join(b, "hugetlb.2MB.max")); err != nil || string(got) != "0\n" {
		t.Errorf("the limit is %q, %v", got, err)
	}
	is("nonsense", k.Write(filepath.Join(b, "hugetlb.2MB.max"), "many"), unix.EINVAL)
	is("no such file", k.Write(filepath.Join(b, "none.max"), "1"), unix.ENOENT)
	is("rmdir", k.Rmdir(b), nil)
	is("rmdir of nothing", k.Rmdir(b), unix.ENOENT)
}

func TestEnsureV2(t *testing.T) {
	tree, k := unified(t, "/agent/test")
	if err := tree.EnsureNode(t.Context(), pod.Resources{CPUShares: 4096, CPUWeight: 157, Memory: new(int64(8 << 30)), Pids: 30000}); err != nil {
		t.Fatal(err)
	}
	const uid = types.UID("11111111-2222-3333-4444-555555555555")
	r := pod.Resources{
		CPUMilli: 1000, CPUShares: 1024, CPUWeight: 39, CPUQuota: new(int64(150000)), CPUPeriod: 100000,
		Memory: new(int64(1<<20 + 1)), Pids: 4096,
	}
	parent, err := tree.EnsurePod(t.Context(), uid, corev1.PodQOSBurstable, r)
	if err != nil {
		t.Fatal(err)
	}
	if want := "/agent/test/kubepods/burstable/pod" + string(uid); parent != want {
		t.Errorf("parent is %s, want %s", parent, want)
	}
	check := func() {
		t.Helper()
		for _, f := range []struct{ cgroup, file, want string }{
			{"/", "cgroup.subtree_control", "cpuset cpu io memory hugetlb pids"},
			{"/agent/test", "cgroup.subtree_control", "cpuset cpu io memory hugetlb pids"},
			{"/agent/test/kubepods", "cpu.weight", "157"},
			{"/agent/test/kubepods", "memory.max", "8589934592"},
			{"/agent/test/kubepods", "pids.max", "30000"},
			{"/agent/test/kubepods", "hugetlb.2MB.max", "9223372036854771712"},
			{"/agent/test/kubepods/burstable", "cpu.weight", "39"},
			{"/agent/test/kubepods/burstable", "memory.max", "max"},
			{"/agent/test/kubepods/besteffort", "cpu.weight", "1"},
			{parent, "cpu.weight", "39"},
			{parent, "cpu.max", "150000 100000"},
			{parent, "memory.max", "1048576"}, // whole pages
			{parent, "pids.max", "4096"},
			{parent, "hugetlb.2MB.max", "0"}, // none asked for
			{parent, "cgroup.subtree_control", "cpuset cpu io memory hugetlb pids"},
		} {
			if got := k.Read(t, f.cgroup, f.file); got != f.want {
				t.Errorf("%s of %s is %q, want %q", f.file, f.cgroup, got, f.want)
			}
		}
	}
	check()

	// A second time writes nothing at all.
	k.Writes = nil
	if _, err := tree.EnsurePod(t.Context(), uid, corev1.PodQOSBurstable, r); err != nil {
		t.Fatal(err)
	}
	if err := tree.EnsureNode(t.Context(), pod.Resources{CPUShares: 4096, CPUWeight: 157, Memory: new(int64(8 << 30)), Pids: 30000}); err != nil {
		t.Fatal(err)
	}
	if len(k.Writes) > 0 {
		t.Errorf("written again: %v", k.Writes)
	}

	// Somebody else's changes are found, put right and counted.
	k.Set(t, parent, "memory.max", "max")
	k.Set(t, "/agent/test/kubepods/burstable", "cpu.weight", "1")
	k.Set(t, "/agent/test/kubepods", "pids.max", "7")
	changes, err := tree.RestoreLimits(t.Context())
	if err != nil || len(changes) != 3 || tree.Foreign() != 3 {
		t.Errorf("changes %+v, %d, %v", changes, tree.Foreign(), err)
	}
	check()

	// A limit below the usage is refused, since v2 would kill.
	k.Set(t, parent, "memory.current", "900000")
	r.Memory = new(int64(4096))
	if _, err := tree.EnsurePod(t.Context(), uid, corev1.PodQOSBurstable, r); !errors.Is(err, unix.EBUSY) {
		t.Errorf("lower the limit below the usage: %v", err)
	}
	if err := tree.RemovePod(t.Context(), uid); err != nil {
		t.Fatal(err)
	}
	if got := k.Read(t, "/agent/test/kubepods/burstable", "cpu.weight"); got != "1" {
		t.Errorf("the burstable class keeps the weight %s", got)
	}
}

func TestEnsureNodeSaysWhatIsMissing(t *testing.T) {
	k := cgroupstest.NewUnified(t, "cpu", "hugetlb")
	tree, err := cgroups.New(cgroups.Config{Mountpoint: k.Mountpoint, Kernel: k, Driver: cgroups.Cgroupfs})
	if err != nil {
		t.Fatal(err)
	}
	err = tree.EnsureNode(t.Context(), pod.Resources{})
	if err == nil || !strings.Contains(err.Error(), "cpuset, memory, pids") {
		t.Errorf("err is %v", err)
	}
	if entries, _ := os.ReadDir(filepath.Join(k.Mountpoint, "kubepods")); entries != nil {
		t.Error("kubepods was made")
	}
}

// Every change of the kernel's fails in turn: the call says so, and the next
// one makes it good.
func TestEveryChangeFailsOnce(t *testing.T) {
	boom := errors.New("boom")
	for n := 0; ; n++ {
		tree, k := unified(t, "/")
		left := n
		k.Fail = func(op, path string) error {
			if left--; left == -1 {
				return boom
			}
			return nil
		}
		run := func() error {
			if err := tree.EnsureNode(t.Context(), pod.Resources{CPUShares: 1024, CPUWeight: 39}); err != nil {
				return err
			}
			if _, err := tree.EnsurePod(t.Context(), "uid", corev1.PodQOSBurstable, pod.Resources{CPUMilli: 500, CPUShares: 512, CPUWeight: 20, Pids: 5}); err != nil {
				return err
			}
			return tree.RemovePod(t.Context(), "uid")
		}
		err := run()
		if left >= 0 {
			if n < 15 {
				t.Errorf("only %d changes were seen", n)
			}
			return
		}
		if !errors.Is(err, boom) {
			t.Fatalf("change %d failed and nobody said so: %v", n, err)
		}
		if err := run(); err != nil {
			t.Fatalf("after change %d failed: %v", n, err)
		}
		if got := k.Read(t, "/kubepods/burstable", "cpu.weight"); got != "1" {
			t.Fatalf("after change %d failed: weight %s", n, got)
		}
	}
}

func TestRemovePodKillsByTheKernelOnV2(t *testing.T) {
	tree, k := unified(t, "/")
	if err := tree.EnsureNode(t.Context(), pod.Resources{CPUShares: 1024, CPUWeight: 39}); err != nil {
		t.Fatal(err)
	}
	parent, err := tree.EnsurePod(t.Context(), "uid", corev1.PodQOSGuaranteed, pod.Resources{CPUShares: 2, CPUWeight: 1})
	if err != nil {
		t.Fatal(err)
	}
	c := filepath.Join(k.Mountpoint, parent, "c")
	if err := k.Mkdir(c); err != nil {
		t.Fatal(err)
	}
	// A pid that no process has: only cgroup.kill can end it.
	if err := k.Write(filepath.Join(c, "cgroup.procs"), "2147483647"); err != nil {
		t.Fatal(err)
	}
	if err := tree.RemovePod(t.Context(), "uid"); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(k.Writes, func(w string) bool { return strings.HasSuffix(w, "poduid/cgroup.kill 1") }) {
		t.Errorf("no cgroup.kill among %v", k.Writes)
	}
	if _, err := os.Stat(filepath.Join(k.Mountpoint, parent)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pod's cgroup: %v", err)
	}
}

func TestFactsV2(t *testing.T) {
	tree, k := unified(t, "/")
	if err := tree.EnsureNode(t.Context(), pod.Resources{CPUShares: 1024, CPUWeight: 39}); err != nil {
		t.Fatal(err)
	}
	parent, err := tree.EnsurePod(t.Context(), "uid", corev1.PodQOSGuaranteed, pod.Resources{CPUShares: 2, CPUWeight: 1, Memory: new(int64(4 << 20))})
	if err != nil {
		t.Fatal(err)
	}
	k.Set(t, parent, "cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 7\nnr_throttled 6\nthrottled_usec 11")
	k.Set(t, parent, "memory.current", "3000000")
	k.Set(t, parent, "memory.stat", "anon 1000000\nfile 2000000\ninactive_file 500000\nfile_mapped 700\npgfault 60\npgmajfault 5")
	k.Set(t, parent, "memory.events", "low 0\nhigh 4\nmax 3\noom 2\noom_kill 1\noom_group_kill 0")
	k.Set(t, parent, "memory.pressure", "some avg10=1.50 avg60=0.00 avg300=0.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.25 total=17")
	k.Set(t, parent, "io.stat", "8:0 rbytes=100 wbytes=200 rios=1 wios=2\n8:16 rbytes=1 wbytes=2 rios=1 wios=1")
	k.Set(t, parent, "memory.oom.group", "1")
	k.Set(t, parent, "pids.current", "9")
	f, err := tree.Facts(t.Context(), parent)
	if err != nil || len(f.Missed) > 0 {
		t.Fatalf("%v, missed %v", err, f.Missed)
	}
	want := cgroups.Usage{
		CPUNanos: 5000, CPUUserNanos: 3000, CPUSystemNanos: 2000, CPUPeriods: 7, CPUThrottled: 6, CPUThrottledTime: 11000,
		MemoryBytes: 3000000, MemoryWorkingSet: 2500000, MemoryAnon: 1000000, MemoryFile: 2000000, MemoryMapped: 700,
		PageFaults: 60, MajorPageFaults: 5, Pids: 9, ReadBytes: 101, WriteBytes: 202,
	}
	if f.Usage != want {
		t.Errorf("usage %+v, want %+v", f.Usage, want)
	}
	if len(f.Devices) != 2 || f.Devices[0].Writes != 2 || f.Devices[0].WriteBytes != 200 || f.Devices[1].ReadBytes != 1 || f.Devices[1].Device == f.Devices[0].Device {
		t.Errorf("devices %+v", f.Devices)
	}
	if f.OOM != (cgroups.OOM{Kills: 1, Events: 2, Limit: 3, High: 4}) {
		t.Errorf("oom %+v", f.OOM)
	}
	p := f.Pressure["memory"]
	if p.Some.Avg10 != 1.5 || p.Some.Total != 42 || p.Full.Avg300 != 0.25 || p.Full.Total != 17 {
		t.Errorf("pressure %+v", f.Pressure)
	}
	l := f.Limits
	if l.CPUWeight == nil || *l.CPUWeight != 1 || l.MemoryMax == nil || *l.MemoryMax != 4<<20 || l.MemoryHigh != nil ||
		l.OOMGroup == nil || !*l.OOMGroup || l.CPUQuota != nil || *l.CPUPeriod != 100000 || l.Pids != nil ||
		*l.Hugepages["2MB"] != 0 || l.CPUs != "0-3" || l.CPUShares != nil || f.Mode != "v2" {
		t.Errorf("limits %+v", l)
	}
	// A file that makes no sense is missed, and hides nothing else.
	k.Set(t, parent, "pids.max", "some")
	if f, err = tree.Facts(t.Context(), parent); err != nil || len(f.Missed) != 1 || f.Usage != want {
		t.Errorf("%v, missed %v, usage %+v", err, f.Missed, f.Usage)
	}
}

// The machine's own cgroup has no memory.current: what it uses is worked out.
func TestFiguresOfTheRootV2(t *testing.T) {
	k := cgroupstest.NewUnified(t, controllers...)
	proc := t.TempDir()
	if err := os.WriteFile(filepath.Join(proc, "meminfo"), []byte("MemTotal: 9000 kB\nSwapTotal:  30 kB\nSwapFree:   10 kB\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tree, err := cgroups.New(cgroups.Config{Mountpoint: k.Mountpoint, Driver: cgroups.Cgroupfs, Kernel: k, Proc: proc})
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"cpu.stat": "usage_usec 5\nuser_usec 3\nsystem_usec 2", "memory.stat": "anon 1000\nfile 500\ninactive_file 200",
	} {
		if err := os.WriteFile(filepath.Join(k.Mountpoint, name), []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := tree.Figures(t.Context(), "/")
	want := cgroups.Usage{CPUNanos: 5000, CPUUserNanos: 3000, CPUSystemNanos: 2000, MemoryBytes: 1500, MemoryWorkingSet: 1300, MemoryAnon: 1000, MemoryFile: 500, SwapBytes: 20 << 10}
	if err != nil || f.Usage != want || len(f.Missed) > 0 {
		t.Errorf("%+v, missed %v, %v; want %+v", f.Usage, f.Missed, err, want)
	}
}
