package cgroups

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
	"nodeagent/internal/test/need"
)

// units is a systemd that knows which units run, makes and removes their
// cgroups, and writes down what it was told.
type units struct {
	mu      sync.Mutex
	running map[string]bool
	log     []string
	closed  bool   // the connection broke
	result  string // of jobs; "done" if empty
	silent  bool   // jobs never end
	make    func(unit string)
	remove  func(unit string)
}

func (u *units) note(verb, name string, properties []dbus.Property) error {
	if u.closed {
		return godbus.ErrClosed
	}
	line := verb + " " + name
	for _, p := range properties {
		value := strings.TrimPrefix(p.Value.String(), "@t ")
		if p.Value.Value() == uint64(math.MaxUint64) {
			value = "infinity"
		}
		line += " " + p.Name + "=" + value
	}
	u.log = append(u.log, line)
	return nil
}

func (u *units) end(ch chan<- string) {
	switch {
	case u.silent:
	case u.result != "":
		ch <- u.result
	default:
		ch <- "done"
	}
}

func (u *units) StartTransientUnitContext(_ context.Context, name, mode string, properties []dbus.Property, ch chan<- string) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.note("start", name, properties); err != nil {
		return 0, err
	}
	if u.running[name] {
		return 0, godbus.Error{Name: "org.freedesktop.systemd1.UnitExists"}
	}
	u.running[name] = true
	if u.make != nil {
		u.make(name)
	}
	u.end(ch)
	return 1, nil
}

func (u *units) StopUnitContext(_ context.Context, name, mode string, ch chan<- string) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.note("stop", name, nil); err != nil {
		return 0, err
	}
	if !u.running[name] {
		return 0, godbus.Error{Name: "org.freedesktop.systemd1.NoSuchUnit"}
	}
	delete(u.running, name)
	if u.remove != nil {
		u.remove(name)
	}
	u.end(ch)
	return 1, nil
}

func (u *units) SetUnitPropertiesContext(_ context.Context, name string, runtime bool, properties ...dbus.Property) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !runtime {
		return errors.New("properties must not outlive a boot")
	}
	return u.note("set", name, properties)
}

func newUnits() *units { return &units{running: map[string]bool{}} }

func dialed(u *units) func(context.Context) (Units, error) {
	return func(context.Context) (Units, error) { return u, nil }
}

const common = ` MemoryAccounting=true CPUAccounting=true IOAccounting=true TasksAccounting=true DefaultDependencies=false`

func TestSystemdSlices(t *testing.T) {
	u := newUnits()
	s := newSystemd(dialed(u))
	cgroup := "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podab_cd.slice"
	r := pod.Resources{CPUShares: 1024, CPUWeight: 39, CPUQuota: new(int64(150001)), CPUPeriod: 100000, Memory: new(int64(1 << 20)), Pids: 4096}
	if err := s.startSlice(t.Context(), cgroup, propertiesOf(true, r)); err != nil {
		t.Fatal(err)
	}
	// Once more, with no limits: the properties that were set are unset.
	if err := s.startSlice(t.Context(), cgroup, propertiesOf(true, pod.Resources{CPUShares: 2, CPUWeight: 1})); err != nil {
		t.Fatal(err)
	}
	if err := s.startSlice(t.Context(), "/kubepods.slice", propertiesOf(false, r)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds no unit
		if err := s.stopSlice(t.Context(), cgroup); err != nil {
			t.Fatal(err)
		}
	}
	name := "kubepods-burstable-podab_cd.slice"
	const limited = ` CPUQuotaPeriodUSec=100000 CPUQuotaPerSecUSec=1510000 TasksMax=4096`
	const free = ` CPUQuotaPeriodUSec=100000 CPUQuotaPerSecUSec=infinity TasksMax=infinity CPUWeight=1 MemoryMax=infinity`
	want := []string{
		"start " + name + ` Description="nodeagent cgroup ` + name + `" Wants=["kubepods-burstable.slice"]` + common + limited + ` CPUWeight=39 MemoryMax=1048576`,
		"start " + name + ` Description="nodeagent cgroup ` + name + `" Wants=["kubepods-burstable.slice"]` + common + free,
		"set " + name + free,
		`start kubepods.slice Description="nodeagent cgroup kubepods.slice" Wants=["-.slice"]` + common + limited + ` CPUShares=1024 MemoryLimit=1048576`,
		"stop " + name,
		"stop " + name,
	}
	if got, want := strings.Join(u.log, "\n"), strings.Join(want, "\n"); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestSystemdQuotaIsRoundedUpToPercents(t *testing.T) {
	for _, c := range []struct {
		quota  int64
		period uint64
		want   uint64
	}{
		{100000, 100000, 1000000}, {1000, 100000, 10000}, {1001, 100000, 20000}, {150001, 100000, 1510000},
		{5000, 5000, 1000000}, {1<<44 - 1, 100000, 175921860450000}, {-1, 100000, math.MaxUint64}, {0, 100000, math.MaxUint64},
	} {
		if got := quotaPerSecond(&c.quota, c.period); got != c.want {
			t.Errorf("quota %d of %d: %d, want %d", c.quota, c.period, got, c.want)
		}
	}
	for _, c := range []struct {
		quota  int64
		period uint64
		want   int64
	}{{100000, 100000, 100000}, {1000, 100000, 1000}, {1001, 100000, 2000}, {150001, 100000, 151000}, {5000, 0, 5000}, {2501, 5000, 2550}} {
		if got := wholePercents(&c.quota, c.period); got == nil || *got != c.want {
			t.Errorf("quota %d of %d: %v, want %d", c.quota, c.period, got, c.want)
		}
	}
	if got := wholePercents(nil, 100000); got != nil {
		t.Errorf("no quota: %d", *got)
	}
	if got := quotaPerSecond(nil, 100000); got != math.MaxUint64 {
		t.Errorf("no quota: %d", got)
	}
}

// A connection that broke is replaced once for all who use it; one that stays
// broken is an error.
func TestSystemdReconnects(t *testing.T) {
	old, next := newUnits(), newUnits()
	dials := 0
	s := newSystemd(func(context.Context) (Units, error) {
		if dials++; dials == 1 {
			return old, nil
		}
		return next, nil
	})
	if err := s.startSlice(t.Context(), "/a.slice", nil); err != nil {
		t.Fatal(err)
	}
	old.closed = true
	for _, name := range []string{"/b.slice", "/c.slice"} {
		if err := s.startSlice(t.Context(), name, nil); err != nil {
			t.Fatal(err)
		}
	}
	if dials != 2 || !next.running["b.slice"] || !next.running["c.slice"] {
		t.Errorf("%d dials, %v", dials, next.running)
	}
	next.closed = true
	if err := s.startSlice(t.Context(), "/d.slice", nil); !errors.Is(err, godbus.ErrClosed) || dials != 3 {
		t.Errorf("err is %v after %d dials", err, dials)
	}
}

func TestSystemdJobsThatFail(t *testing.T) {
	u := newUnits()
	s := newSystemd(dialed(u))
	u.result = "failed"
	if err := s.startSlice(t.Context(), "/a.slice", nil); err == nil || !strings.Contains(err.Error(), `"failed"`) {
		t.Errorf("a failed job: %v", err)
	}
	u.silent = true
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := s.startSlice(ctx, "/b.slice", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a job without end: %v", err)
	}
	bad := newSystemd(func(context.Context) (Units, error) {
		return nil, fmt.Errorf("connect to systemd: %w", os.ErrPermission)
	})
	if err := bad.startSlice(t.Context(), "/a.slice", nil); !errors.Is(err, os.ErrPermission) {
		t.Errorf("no connection: %v", err)
	}
}

// A pod's way with systemd, over a plain directory in place of the kernel.
func TestPodWithSystemd(t *testing.T) {
	k := &plainKernel{dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(k.dir, "cgroup.subtree_control"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	u := newUnits()
	tree, err := New(Config{Mountpoint: k.dir, Driver: Systemd, Require: []string{}, Kernel: k, Dial: dialed(u), HugepagesDir: "/none"})
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.EnsureNode(t.Context(), pod.Resources{CPUShares: 1024, CPUWeight: 39}); err != nil {
		t.Fatal(err)
	}
	parent, err := tree.EnsurePod(t.Context(), "ab-cd", corev1.PodQOSBestEffort, pod.Resources{CPUShares: 2, CPUWeight: 1})
	if err != nil {
		t.Fatal(err)
	}
	if want := "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podab_cd.slice"; parent != want {
		t.Errorf("parent %s, want %s", parent, want)
	}
	if got, want := tree.ContainerPath(parent, "1234"), "kubepods-besteffort-podab_cd.slice:cri-containerd:1234"; got != want {
		t.Errorf("container path %s, want %s", got, want)
	}
	if got, want := tree.ContainerCgroup(parent, "1234"), parent+"/cri-containerd-1234.scope"; got != want {
		t.Errorf("container cgroup %s, want %s", got, want)
	}
	pods, err := tree.Pods(t.Context())
	if err != nil || len(pods) != 1 || pods[0].UID != "ab-cd" || pods[0].QOS != corev1.PodQOSBestEffort {
		t.Errorf("pods %+v, %v", pods, err)
	}
	if !u.running["kubepods-besteffort-podab_cd.slice"] || !u.running["kubepods.slice"] || !u.running["kubepods-burstable.slice"] {
		t.Errorf("running: %v", u.running)
	}
	if err := tree.RemovePod(t.Context(), "ab-cd"); err != nil {
		t.Fatal(err)
	}
	if u.running["kubepods-besteffort-podab_cd.slice"] || exists(filepath.Join(k.dir, parent)) {
		t.Error("the pod is left")
	}
	for _, uid := range []types.UID{"a_b", "a.b"} { // systemd reads both in its own way
		if _, err := tree.EnsurePod(t.Context(), uid, corev1.PodQOSBestEffort, pod.Resources{}); err == nil {
			t.Errorf("pod UID %q was taken", uid)
		}
	}
}

// systemd is not told of a memory limit below what is in use either: it would
// write it at once.
func TestSystemdIsNotToldToShrinkBelowUsage(t *testing.T) {
	k := &plainKernel{dir: t.TempDir(), files: map[string]string{"memory.max": "max\n", "memory.current": "4096\n"}}
	for name, value := range map[string]string{"cgroup.subtree_control": "", "cgroup.controllers": "memory"} {
		writeNew(t, filepath.Join(k.dir, name), value)
	}
	u := newUnits()
	tree, err := New(Config{Mountpoint: k.dir, Driver: Systemd, Require: []string{}, Kernel: k, Dial: dialed(u), HugepagesDir: "/none"})
	if err != nil {
		t.Fatal(err)
	}
	node := pod.Resources{CPUShares: 1024, CPUWeight: 39, Memory: new(int64(1 << 30))}
	if err := tree.EnsureNode(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	parent, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSBurstable, limits(0, 0, 64<<20, 0))
	if err != nil {
		t.Fatal(err)
	}
	told := func(unit, max string) {
		t.Helper()
		last := ""
		for _, line := range u.log {
			if strings.HasPrefix(line, "set "+unit+" ") {
				last = line
			}
		}
		if !strings.HasSuffix(last, " MemoryMax="+max) {
			t.Errorf("systemd was told %q, want MemoryMax=%s", last, max)
		}
	}
	unit := filepath.Base(parent)
	for _, step := range []struct {
		used, was string
		want      int64
		max       string
		err       error
	}{
		{"33554432", "67108864", 16 << 20, "67108864", unix.EBUSY},
		{"33554432", "max", 16 << 20, "infinity", unix.EBUSY}, // somebody lifted it
		{"16777216", "67108864", 16<<20 + 1, "16777217", nil}, // whole pages
		{"33554432", "67108864", 128 << 20, "134217728", nil},
	} {
		writeNew(t, filepath.Join(k.dir, parent, "memory.current"), step.used)
		writeNew(t, filepath.Join(k.dir, parent, "memory.max"), step.was)
		_, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSBurstable, limits(0, 0, step.want, 0))
		if !errors.Is(err, step.err) {
			t.Errorf("a limit of %d with %s in use: %v", step.want, step.used, err)
		}
		told(unit, step.max)
	}

	// Nor for all pods together; what is in use there is no reason not to run.
	kubepods := filepath.Join(k.dir, tree.kubepods())
	writeNew(t, filepath.Join(kubepods, "memory.current"), "900000000")
	node.Memory = new(int64(512 << 20))
	if err := tree.EnsureNode(t.Context(), node); err != nil {
		t.Error(err)
	}
	told("kubepods.slice", "1073741824")
	if got := readString(t, filepath.Join(kubepods, "memory.max")); got != "1073741824" {
		t.Errorf("the limit of all pods is %s", got)
	}
}

func writeNew(t *testing.T, file, value string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
		t.Fatal(err)
	}
}

// plainKernel has a unified hierarchy without controllers, or with these files of
// theirs.
type plainKernel struct {
	dir    string
	files  map[string]string
	writes atomic.Int64
}

func (k *plainKernel) Hierarchies(string) ([]Hierarchy, error) {
	return []Hierarchy{{Dir: k.dir, Unified: true}}, nil
}

func (k *plainKernel) Mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for name, value := range k.files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), nil, 0o644)
}

func (k *plainKernel) Rmdir(dir string) error {
	_ = os.Remove(filepath.Join(dir, "cgroup.subtree_control"))
	return linux{}.Rmdir(dir)
}

func (k *plainKernel) Write(file, value string) error {
	k.writes.Add(1)
	return os.WriteFile(file, []byte(value), 0o644)
}

// The same with the real systemd, on either version: it makes and keeps what we
// asked it for, lowers no memory limit below what is in use, and nothing is left.
func TestRealSystemd(t *testing.T) {
	need.Have(t, need.Root, need.Systemd)
	root := fmt.Sprintf("nodeagenttest%d", os.Getpid())
	tree, err := New(Config{Root: "/" + root, Driver: Systemd})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := within(t, 30*time.Second)
		for _, names := range [][]string{{root, "kubepods"}, {root}} {
			if err := tree.systemd.stopSlice(ctx, slicePath(names)); err != nil {
				t.Error(err)
			}
		}
		if busy, err := tree.rmdirs(tree.existing(slicePath([]string{root}))); len(busy) > 0 {
			t.Error(err)
		}
		if c, ok := tree.systemd.conn.(*dbus.Conn); ok {
			c.Close()
		}
	})
	ctx := within(t, time.Minute)
	if err := tree.EnsureNode(ctx, pod.Resources{CPUShares: 2048, CPUWeight: 79}); err != nil {
		t.Fatal(err)
	}
	wantLimits := func(parent string) {
		t.Helper()
		wantEither(t, tree, parent, map[string]string{
			"cpu/cpu.shares": "256", "cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000",
			"memory/memory.limit_in_bytes": "67108864", "pids/pids.max": "100",
		}, map[string]string{
			"cpu/cpu.weight": "10", "cpu/cpu.max": "50000 100000", "memory/memory.max": "67108864", "pids/pids.max": "100",
		})
	}
	for range 2 { // made, and found as it should be
		parent, err := tree.EnsurePod(ctx, someUID, corev1.PodQOSBurstable, limits(250, 49999, 64<<20, 100))
		if err != nil {
			t.Fatal(err)
		}
		wantLimits(parent)
	}
	parent, _ := tree.PodPath(someUID, corev1.PodQOSBurstable)
	if changes, err := tree.RestoreLimits(ctx); err != nil || len(changes) > 0 {
		t.Errorf("%+v, %v", changes, err)
	}
	cmd := script(t, tree, parent+"/cri-containerd-c.scope", holds20MB)
	_, err = tree.EnsurePod(ctx, someUID, corev1.PodQOSBurstable, limits(250, 49999, 4<<20, 100))
	if !errors.Is(err, unix.EBUSY) {
		t.Errorf("the limit was lowered below the usage: %v", err)
	}
	wantLimits(parent)
	if err := cmd.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("a new limit killed the process: %v", err)
	}
	if err := tree.RemovePod(ctx, someUID); err != nil {
		t.Fatal(err)
	}
	if dirs := left(tree, parent); dirs != nil {
		t.Errorf("left: %v", dirs)
	}
}
