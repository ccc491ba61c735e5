package spec

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/pkg/cap"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/test/need"
)

// TestLoadSeccomp is CVE-2023-2431: what is no profile must never mean none.
func TestLoadSeccomp(t *testing.T) {
	root := t.TempDir()
	write(t, root+"/profiles/good.json", `{"defaultAction":"SCMP_ACT_ERRNO"}`)
	write(t, root+"/empty.json", ``)
	write(t, root+"/null.json", `null`)
	write(t, root+"/object.json", `{}`)
	write(t, root+"/list.json", `[]`)
	write(t, root+"/junk.json", `{"defaultAction":"SCMP_ACT_ERRNO"} x`)
	write(t, root+"/big.json", `{"defaultAction":"`+strings.Repeat("x", maxProfile)+`"}`)
	outside := filepath.Join(t.TempDir(), "out.json")
	write(t, outside, `{"defaultAction":"SCMP_ACT_ALLOW"}`)
	link(t, outside, root+"/out.json")
	link(t, "profiles/good.json", root+"/inside.json")
	if err := unix.Mkfifo(root+"/fifo.json", 0o600); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"profiles/good.json", "inside.json"} {
		if p, err := LoadSeccomp(root, ref); err != nil || p.DefaultAction != specs.ActErrno {
			t.Errorf("%s: %+v, %v", ref, p, err)
		}
	}
	for _, ref := range []string{"", ".", "profiles", "../x", "profiles/../../x", "/etc/passwd", outside, "absent.json", "a\x00b",
		"empty.json", "null.json", "object.json", "list.json", "junk.json", "big.json", "out.json", "fifo.json"} {
		if p, err := LoadSeccomp(root, ref); err == nil {
			t.Errorf("%q was loaded: %+v", ref, p)
		}
	}
}

func TestSeccomp(t *testing.T) {
	profile := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow}}}
	sp := func(kind runtimeapi.SecurityProfile_ProfileType, ref string) *runtimeapi.SecurityProfile {
		return &runtimeapi.SecurityProfile{ProfileType: kind, LocalhostRef: ref}
	}
	cases := []struct {
		name     string
		profile  *runtimeapi.SecurityProfile
		syscalls bool // has a profile
		size     int  // of its rules; 0: do not care
	}{
		{"none asked for", nil, true, 0},
		{"RuntimeDefault", sp(runtimeapi.SecurityProfile_RuntimeDefault, ""), true, 0},
		{"Unconfined", sp(runtimeapi.SecurityProfile_Unconfined, ""), false, 0},
		{"Localhost", sp(runtimeapi.SecurityProfile_Localhost, "p"), true, 1},
	}
	for _, c := range cases {
		in := base()
		in.LocalhostProfile = profile
		security(&in).Seccomp = c.profile
		s, err := Build(in)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if (s.Linux.Seccomp != nil) != c.syscalls || c.size > 0 && len(s.Linux.Seccomp.Syscalls) != c.size {
			t.Errorf("%s: %+v", c.name, s.Linux.Seccomp)
		}
	}
	// Capabilities come first: the default profile allows what they are for.
	mounts := func(add ...string) bool {
		in := base()
		security(&in).Capabilities = &runtimeapi.Capability{AddCapabilities: add}
		s, err := Build(in)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(s.Linux.Seccomp.Syscalls, func(r specs.LinuxSyscall) bool {
			return r.Action == specs.ActAllow && len(r.Args) == 0 && slices.Contains(r.Names, "mount")
		})
	}
	if mounts() || !mounts("SYS_ADMIN") {
		t.Error("the default profile does not follow the capabilities")
	}
}

func TestStopSignal(t *testing.T) {
	for s, want := range map[string]syscall.Signal{
		"": 15, "SIGTERM": 15, "term": 15, "9": 9, "SIGKILL": 9, "SIGUSR1": 10, "64": 64, "SIGRTMIN": 34, "SIGRTMIN+3": 37, "rtmax-14": 50, "SIGRTMAX": 64,
	} {
		if got, ignored := StopSignal(nil, ocispec.ImageConfig{StopSignal: s}); got != want || ignored != "" {
			t.Errorf("%q: %d, ignored %q; want %d", s, got, ignored, want)
		}
	}
	for _, s := range []string{"0", "65", "-9", "SIGNOPE", "15 ", "\x00", "SIGRTMIN+31", "SIGRTMAX-31", "SIGRTMIN-1", "9999999999", strings.Repeat("9", 1<<16)} {
		if got, ignored := StopSignal(nil, ocispec.ImageConfig{StopSignal: s}); got != syscall.SIGTERM || ignored != s {
			t.Errorf("%.20q: %d, ignored %.20q; want SIGTERM", s, got, ignored)
		}
	}
	// Each of CRI's names is one of ours.
	for n := range runtimeapi.Signal_name {
		if n == int32(runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT) {
			continue
		}
		name := runtimeapi.Signal(n).String()
		if _, ok := parseSignal(criName(name)); !ok {
			t.Errorf("CRI's %s is unknown", name)
		}
	}
	c := &runtimeapi.ContainerConfig{StopSignal: runtimeapi.Signal_SIGNAL_SIGUSR2}
	if got, _ := StopSignal(c, ocispec.ImageConfig{StopSignal: "SIGINT"}); got != syscall.SIGUSR2 {
		t.Errorf("the config's signal does not win: %d", got)
	}
}

// TestImageVolumes is CVE-2022-23648.
func TestImageVolumes(t *testing.T) {
	volumes := func(paths ...string) ocispec.ImageConfig {
		c := ocispec.ImageConfig{Volumes: map[string]struct{}{}}
		for _, p := range paths {
			c.Volumes[p] = struct{}{}
		}
		return c
	}
	mounts := []*runtimeapi.Mount{{ContainerPath: "/covered/"}}
	got, err := ImageVolumes(volumes("/data", "data/", "rel/x", "/covered", "//var/lib//db"), mounts)
	if want := []string{"/data", "/rel/x", "/var/lib/db"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	for _, bad := range []string{"/../../etc", "", ".", "/", "/a/..", "/proc/x", "/proc", "/sys/fs/cgroup", "/dev/shm", "a\x00b"} {
		if got, err := ImageVolumes(volumes(bad), nil); !IsRefused(err) {
			t.Errorf("VOLUME %q: %v, %v", bad, got, err)
		}
	}
	var many []string
	for i := range maxVolumes + 1 {
		many = append(many, "/v"+strings.Repeat("x", i))
	}
	if _, err := ImageVolumes(volumes(many...), nil); !IsRefused(err) {
		t.Errorf("%d volumes: %v", len(many), err)
	}
}

func TestReadHost(t *testing.T) {
	h, err := ReadHost()
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	if h.Seccomp != strings.Contains(string(status), "Seccomp_filters:") {
		t.Errorf("seccomp = %v", h.Seccomp)
	}
	// The kernel itself says how low we may go.
	own, err := cap.Current()
	if err != nil {
		t.Fatal(err)
	}
	if h.OOMScoreAdjMin == -1000 != slices.Contains(own, "CAP_SYS_RESOURCE") {
		t.Errorf("least oom_score_adj %d with %v", h.OOMScoreAdjMin, own)
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); (err == nil) != h.CgroupV2 {
		t.Errorf("cgroup v2 = %v", h.CgroupV2)
	}
}

// TestReadHostFewCapabilities: what the daemon's unit takes from the daemon is
// not taken from its pods.
func TestReadHostFewCapabilities(t *testing.T) {
	const lacks = "NODEAGENT_TEST_LACKS"
	whole, err := ReadHost()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv(lacks) == "" {
		need.Have(t, need.Root)
		cmd := exec.Command("setpriv", "--bounding-set=-sys_time,-sys_module", os.Args[0], "-test.run=^TestReadHostFewCapabilities$", "-test.v")
		cmd.Env = append(os.Environ(), lacks+"=CAP_SYS_TIME")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	own, err := cap.Current()
	if err != nil || slices.Contains(own, os.Getenv(lacks)) {
		t.Fatalf("the test has %v, %v", own, err)
	}
	if !slices.Contains(whole.Capabilities, os.Getenv(lacks)) {
		t.Errorf("pods can only have %v", whole.Capabilities)
	}
}

func TestDevices(t *testing.T) {
	got, err := Devices([]*runtimeapi.Device{{HostPath: "/dev/null", ContainerPath: "/dev/mine", Permissions: "rw"}})
	if err != nil || len(got) != 1 || got[0].Node.Path != "/dev/mine" || got[0].Node.Major != 1 || got[0].Node.Minor != 3 {
		t.Fatalf("%+v, %v", got, err)
	}
	in := base()
	in.Devices = got
	s, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	if r := s.Linux.Resources.Devices; len(r) != 2 || r[0].Allow || !r[1].Allow || r[1].Access != "rw" || *r[1].Minor != 3 {
		t.Errorf("rules = %+v", r)
	}
	if _, err := Devices([]*runtimeapi.Device{{HostPath: "/etc/passwd"}}); err == nil {
		t.Error("a file is a device")
	}
	all, err := HostDevices()
	if err != nil || !slices.ContainsFunc(all, func(d specs.LinuxDevice) bool { return d.Path == "/dev/null" }) {
		t.Errorf("%d host devices, %v", len(all), err)
	}
}

func TestCheckPropagation(t *testing.T) {
	need.Have(t, need.Root)
	dir := t.TempDir()
	mount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("", dir, "", flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	ask := func(p runtimeapi.MountPropagation) error {
		return CheckPropagation([]*runtimeapi.Mount{{ContainerPath: "/x", HostPath: dir, Propagation: p}})
	}
	both, in := runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL, runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	mount(unix.MS_PRIVATE)
	if ask(both) == nil || ask(in) == nil || ask(runtimeapi.MountPropagation_PROPAGATION_PRIVATE) != nil {
		t.Error("a private mount: propagation is given, or None refused")
	}
	mount(unix.MS_SHARED)
	if err := ask(both); err != nil {
		t.Error(err)
	}
	if err := ask(in); err != nil {
		t.Error(err)
	}
}
