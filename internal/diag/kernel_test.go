package diag

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeagent/internal/cgroups"
	"nodeagent/internal/shimapi"
)

const statusText = `Name:	app
State:	S (sleeping)
Uid:	1000	1001	1002	1003
Gid:	2000	2001	2002	2003
Groups:	5 6
CapInh:	0000000000000000
CapPrm:	00000000a80425fb
CapEff:	00000000a80425fb
CapBnd:	00000000a80425fb
CapAmb:	8000000000000000
NoNewPrivs:	1
Seccomp:	2
Seccomp_filters:	3
`

func TestParseStatus(t *testing.T) {
	f, err := parseStatus([]byte(statusText))
	if err != nil {
		t.Fatal(err)
	}
	if f.UID != 1001 || f.GID != 2001 || !slices.Equal(f.Groups, []uint32{5, 6}) || !f.NoNewPrivs || f.Seccomp != "filter" || f.Filters != 3 {
		t.Errorf("the facts are %+v", f)
	}
	if len(f.Capabilities.Bounding) != 14 || !slices.Contains(f.Capabilities.Bounding, "CAP_SYS_CHROOT") || slices.Contains(f.Capabilities.Bounding, "CAP_SYS_ADMIN") {
		t.Errorf("0xa80425fb are %v", f.Capabilities.Bounding)
	}
	if !slices.Equal(f.Capabilities.Ambient, []string{"CAP_63"}) {
		t.Errorf("an unknown capability is %v", f.Capabilities.Ambient)
	}
	for _, bad := range []string{"", "Name:\tx\n", strings.Replace(statusText, "1001", "x", 1), strings.Replace(statusText, "a80425fb", "zz", 1)} {
		if _, err := parseStatus([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

const mountText = `22 1 0:21 / / rw,relatime shared:1 master:2 - overlay overlay rw,lowerdir=x
23 22 0:22 /a\040b /data\012x ro,nosuid - ext4 /dev/vd\134a rw
24 22 0:23 / /proc rw - proc proc ro
`

func TestParseMounts(t *testing.T) {
	all, err := parseMounts([]byte(mountText))
	if err != nil || len(all) != 3 {
		t.Fatal(all, err)
	}
	if m := all[1]; m.Root != "/a b" || m.Destination != "/data\nx" || m.Source != `/dev/vd\a` || !m.ReadOnly || m.Type != "ext4" || m.id != 23 {
		t.Errorf("the mount is %+v", m)
	}
	if all[0].ReadOnly || all[0].Propagation != "shared:1 master:2" || !all[2].ReadOnly {
		t.Errorf("the mounts are %+v", all)
	}
	for _, bad := range []string{"22 1 0:21 / / rw", "x 1 0:21 / / rw - a b c", "22 1 0:21 / / rw - a b"} {
		if _, err := parseMounts([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte(statusText))
	f.Add([]byte("Uid:\t1 1 1\nCapBnd:\tffffffffffffffffff\n"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseStatus(b) })
}

func FuzzParseMounts(f *testing.F) {
	f.Add([]byte(mountText))
	f.Add([]byte(`1 1 0:1 /\ /\04 rw - x y z`))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseMounts(b) })
}

// TestOwnProcess reads the facts of a process that is surely there.
func TestOwnProcess(t *testing.T) {
	pid := os.Getpid()
	f, err := readProcess("/proc", pid)
	if err != nil || int(f.UID) != os.Geteuid() {
		t.Errorf("own rights: %+v, %v", f, err)
	}
	ns, err := readNamespaces("/proc", pid)
	if err != nil || len(ns) < 7 || !ns["network"].Host {
		t.Errorf("own namespaces: %v, %v", ns, err)
	}
	mounts, err := readMounts("/proc", pid)
	if err != nil || len(mounts) == 0 {
		t.Fatal(mounts, err)
	}
	if m, err := mountAt("/proc", pid, "/proc", mounts); err != nil || m == nil || m.Type != "proc" {
		t.Errorf("/proc is %+v, %v", m, err)
	}
	link := t.TempDir() + "/link"
	if err := os.Symlink("/proc", link); err != nil {
		t.Fatal(err)
	}
	if m, err := mountAt("/proc", pid, link, mounts); err != nil || m == nil || m.Destination != "/proc" {
		t.Errorf("a link to /proc is %+v, %v", m, err)
	}
	for _, path := range []string{"/proc/self", t.TempDir(), "/nothing/there"} {
		if m, err := mountAt("/proc", pid, path, mounts); err != nil || (m != nil && m.Destination != path) {
			t.Errorf("%s, which is no mount, is %+v, %v", path, m, err)
		}
	}
	if _, err := readProcess("/proc", 1<<30); !os.IsNotExist(unwrapped(err)) {
		t.Errorf("of a process that is gone: %v", err)
	}
}

func unwrapped(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return err
		}
		err = u.Unwrap()
	}
}

// TestDrift takes each thing that is compared away in turn.
func TestDrift(t *testing.T) {
	num := func(n uint64) *uint64 { return &n }
	snum := func(n int64) *int64 { return &n }
	fresh := func() (*Asked, *Kernel) {
		score := 900
		rights := ProcessFacts{Capabilities: Capabilities{Bounding: []string{"CAP_KILL", "CAP_CHOWN"}, Effective: []string{"CAP_KILL"}}, NoNewPrivs: true, Seccomp: "filter"}
		a := &Asked{
			Cgroup: "/kubepods/p/c", Capabilities: Capabilities{Bounding: []string{"CAP_CHOWN", "CAP_KILL"}}, NoNewPrivs: true, Seccomp: "filter",
			OOMScoreAdj: &score, Namespaces: map[string]string{"network": "/proc/self/ns/net", "mount": "new", "user": "host"},
			Limits: AskedLimits{CPUShares: num(102), CPUQuota: snum(5000), CPUPeriod: num(100000), MemoryMax: snum(10_000_000), Pids: snum(10), CPUs: "0-1"},
			Mounts: []AskedMount{{Destination: "/proc", Type: "proc"}},
		}
		id, err := namespaceID("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		mounts, err := readMounts("/proc", os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		k := &Kernel{
			Cgroup: cgroups.Facts{Mode: "v1", Paths: map[string]string{"cpu": "/kubepods/p/c"}, Limits: cgroups.Limits{
				CPUShares: num(102), CPUQuota: num(5000), CPUPeriod: num(100000), MemoryMax: num(10_000_000 / 4096 * 4096), Pids: num(10), CPUs: "0-1",
			}},
			Init: rights, Processes: []InspectedProcess{{Process: cgroups.Process{PID: 5, OOMScoreAdj: 900}, Rights: &rights}},
			Namespaces: map[string]Namespace{"network": {ID: id, Host: true}, "mount": {ID: 1}, "user": {ID: 2, Host: true}, "time": {ID: 3, Host: true}}, Mounts: mounts,
		}
		return a, k
	}
	for _, c := range []struct {
		name   string
		change func(*Asked, *Kernel)
		want   string // the begin of what differs; "" for nothing
	}{
		{"nothing", func(*Asked, *Kernel) {}, ""},
		{"cgroup", func(_ *Asked, k *Kernel) { k.Cgroup.Paths["cpu"] = "/elsewhere" }, "cgroup of cpu"},
		{"scope", func(a *Asked, k *Kernel) { a.Cgroup = "x.slice:cri:c"; k.Cgroup.Paths["cpu"] = "/x.slice/cri-c.scope" }, ""},
		{"other scope", func(a *Asked, k *Kernel) { a.Cgroup = "x.slice:cri:c"; k.Cgroup.Paths["cpu"] = "/x.slice/cri-d.scope" }, "cgroup of cpu"},
		{"shares", func(_ *Asked, k *Kernel) { k.Cgroup.Limits.CPUShares = num(2) }, "cpu.shares"},
		{"weight", func(a *Asked, k *Kernel) {
			k.Cgroup.Mode, k.Cgroup.Limits.CPUWeight = "v2", num(4)
			a.Limits.Unified = map[string]string{"cpu.weight": "5"}
		}, "cpu.weight"},
		{"quota", func(_ *Asked, k *Kernel) { k.Cgroup.Limits.CPUQuota = nil }, "cpu quota"},
		{"memory", func(_ *Asked, k *Kernel) { k.Cgroup.Limits.MemoryMax = nil }, "memory limit"},
		{"pids", func(_ *Asked, k *Kernel) { k.Cgroup.Limits.Pids = num(11) }, "processes"},
		{"cpus", func(_ *Asked, k *Kernel) { k.Cgroup.Limits.CPUs = "0" }, "cpus"},
		{"bounding set", func(_ *Asked, k *Kernel) { k.Init.Capabilities.Bounding = nil }, "capabilities (bounding)"},
		{"a right too many", func(_ *Asked, k *Kernel) { k.Processes[0].Rights.Capabilities.Effective = []string{"CAP_BPF"} }, "capabilities of process 5"},
		{"no_new_privs", func(_ *Asked, k *Kernel) { k.Processes[0].Rights.NoNewPrivs = false }, "no_new_privs"},
		{"seccomp", func(_ *Asked, k *Kernel) { k.Processes[0].Rights.Seccomp = "disabled" }, "seccomp"},
		{"no profile", func(a *Asked, k *Kernel) { a.AppArmor, k.Processes[0].Rights.AppArmor = "p", "unconfined" }, "AppArmor profile of process 5"},
		{"another profile", func(a *Asked, k *Kernel) { a.AppArmor, k.Processes[0].Rights.AppArmor = "p", "p//child" }, ""},
		{"score", func(_ *Asked, k *Kernel) { k.Processes[0].OOMScoreAdj = 0 }, "oom_score_adj of process 5"},
		{"raised score", func(_ *Asked, k *Kernel) { k.Processes[0].OOMScoreAdj = 1000 }, "oom_score_adj of process 5"},
		{"other namespace", func(_ *Asked, k *Kernel) { k.Namespaces["network"] = Namespace{ID: 9} }, "network namespace"},
		{"pin gone", func(a *Asked, _ *Kernel) { a.Namespaces["network"] = "/nothing/there" }, "network namespace"},
		{"host's instead of new", func(_ *Asked, k *Kernel) { k.Namespaces["mount"] = Namespace{ID: 1, Host: true} }, "mount namespace"},
		{"new instead of host's", func(_ *Asked, k *Kernel) { k.Namespaces["user"] = Namespace{ID: 2} }, "user namespace"},
		{"mount gone", func(a *Asked, _ *Kernel) { a.Mounts[0].Destination = "/proc/self" }, "mount /proc/self"},
		{"writable", func(a *Asked, _ *Kernel) { a.Mounts[0].ReadOnly = true }, "mount /proc"},
		{"read-only", func(a *Asked, k *Kernel) { bindProc(a, k, "ro,relatime") }, "mount /proc"},
		{"a read-only file system", func(a *Asked, k *Kernel) { bindProc(a, k, "rw,relatime") }, ""},
	} {
		a, k := fresh()
		c.change(a, k)
		in := &Inspector{Proc: "/proc"}
		got, errs := in.compare(os.Getpid(), a, k)
		if len(errs) > 0 {
			t.Errorf("%s: not read: %v", c.name, errs)
		}
		if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0].What, c.want)) {
			t.Errorf("%s: %v, want %q", c.name, got, c.want)
		}
	}
}

// bindProc makes /proc a bind that is read-only in some way.
func bindProc(a *Asked, k *Kernel, options string) {
	a.Mounts[0].Type = "bind"
	for i := range k.Mounts {
		if k.Mounts[i].Destination == "/proc" {
			k.Mounts[i].ReadOnly, k.Mounts[i].Options = true, options
		}
	}
}

// TestUntilExit waits for a process as for a container.
func TestUntilExit(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(shimapi.ExitDir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	start := func() (*exec.Cmd, *Container) {
		cmd := exec.Command("sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd, &Container{ID: "c1", State: "Running", Pid: uint32(cmd.Process.Pid)}
	}
	within := func(what string, done <-chan struct{}, d time.Duration) {
		t.Helper()
		select {
		case <-done:
		case <-time.After(d):
			t.Errorf("%s: not told within %v", what, d)
		}
	}
	_, c := start()
	ended, stop := untilExit(t.Context(), dir, c)
	if ended.Err() != nil {
		t.Error("a running container counts as ended")
	}
	if err := shimapi.WriteExit(dir, shimapi.ExitRecord{ContainerID: "c1", ExitedAt: t0}); err != nil {
		t.Fatal(err)
	}
	within("record", ended.Done(), time.Second)
	stop()
	ended, stop = untilExit(t.Context(), dir, c)
	within("record there before", ended.Done(), time.Second)
	stop()
	if err := shimapi.RemoveExit(dir, "c1"); err != nil {
		t.Fatal(err)
	}
	cmd, c := start()
	ended, stop = untilExit(t.Context(), dir, c)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	within("no record", ended.Done(), 2*recordGrace)
	stop()
	ended, stop = untilExit(t.Context(), dir, c)
	within("gone before", ended.Done(), time.Second)
	stop()
	_, c = start()
	_, stop = untilExit(t.Context(), dir, c)
	stop() // told to stop: goleak finds what is left
}

func TestBetween(t *testing.T) {
	u := func(at time.Duration, cpu, periods, throttled uint64) ContainerUsage {
		return ContainerUsage{ID: "c", At: t0.Add(at), Usage: cgroups.Usage{CPUNanos: cpu, CPUPeriods: periods, CPUThrottled: throttled}}
	}
	got := Between([]ContainerUsage{u(0, 1e9, 10, 5)}, []ContainerUsage{u(2*time.Second, 2e9, 20, 10), {ID: "new"}})
	if got[0].CPUCores != 0.5 || got[0].Throttled != 0.5 || got[1].CPUCores != 0 {
		t.Errorf("the averages are %+v", got)
	}
	if got := Between([]ContainerUsage{u(0, 5e9, 0, 0)}, []ContainerUsage{u(time.Second, 1, 0, 0)}); got[0].CPUCores != 0 {
		t.Errorf("a counter that began anew gives %v", got[0].CPUCores)
	}
}

func TestConfinedBy(t *testing.T) {
	for label, want := range map[string]string{
		"unconfined\n": "unconfined", "cri-containerd.apparmor.d (enforce)\n": "cri-containerd.apparmor.d",
		"my profile (complain)": "my profile", "a (b) (kill)\n": "a (b)", "": "", "x (unconfined)": "x",
	} {
		if got := confinedBy(label); got != want {
			t.Errorf("%q is %q, want %q", label, got, want)
		}
	}
}
