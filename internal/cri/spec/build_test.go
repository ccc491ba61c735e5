package spec

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

type hostMode = os.FileMode

// TestGolden shows whole specs as files, so that each change of one is seen in
// review. The seccomp profile is containerd's and is left out but for its
// presence.
func TestGolden(t *testing.T) {
	cases := map[string]func(*Input){
		"default": func(*Input) {},
		"cgroupv2": func(in *Input) {
			in.Host.CgroupV2 = true
			in.Host.CgroupOptions = []string{"nsdelegate"}
			in.CgroupsPath = "kubepods-burstable-podabc.slice:nodeagent:c1"
			in.Sandbox.Linux.CgroupParent = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podabc.slice"
			in.Container.Linux.Resources.Unified = map[string]string{"memory.oom.group": "1"}
		},
		"privileged": func(in *Input) {
			in.Host.CgroupOptions = []string{"nsdelegate"}
			makePrivileged(in)
			in.Container.Tty = true
		},
		"host": func(in *Input) {
			host := &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_NODE, Ipc: runtimeapi.NamespaceMode_NODE}
			in.Sandbox.Linux.SecurityContext.NamespaceOptions = host
			security(in).NamespaceOptions = host
			in.Namespaces = Namespaces{PID: PIDHost}
			in.ShmPath = ""
			in.Hostname = "node-1"
		},
		"strict": func(in *Input) {
			sec := security(in)
			sec.ReadonlyRootfs = true
			sec.NoNewPrivs = true
			sec.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"NET_BIND_SERVICE"}}
		},
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			in := base()
			change(&in)
			s, err := Build(in)
			if err != nil {
				t.Fatal(err)
			}
			if s.Linux.Seccomp != nil {
				s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: s.Linux.Seccomp.DefaultAction}
			}
			got, err := json.MarshalIndent(s, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(strings.TrimSpace(string(want)), string(got)); d != "" {
				t.Errorf("spec differs from %s (-want +got):\n%s", file, d)
			}
		})
	}
}

// TestRefused lists what no container may ask for.
func TestRefused(t *testing.T) {
	cases := []struct {
		name   string
		change func(*Input)
		want   string
	}{
		{"privileged in an unprivileged sandbox", func(in *Input) { security(in).Privileged = true }, "not privileged"},
		{"user namespace", func(in *Input) {
			security(in).NamespaceOptions.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD}
		}, "user namespaces"},
		{"no network namespace", func(in *Input) { in.Namespaces.Net = "" }, "network namespace"},
		{"no ipc namespace", func(in *Input) { in.Namespaces.IPC = "" }, "ipc namespace"},
		{"no uts namespace", func(in *Input) { in.Namespaces.UTS = "" }, "uts namespace"},
		{"pid host not asked for", func(in *Input) { in.Namespaces.PID = PIDHost }, "PID namespace"},
		{"pid join without path", func(in *Input) {
			in.Namespaces.PID = PIDJoin
			security(in).NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
		}, "not absolute"},
		{"no command", func(in *Input) {
			in.Container.Command, in.Container.Args = nil, nil
			in.Image.Entrypoint, in.Image.Cmd = nil, nil
		}, "no command"},
		{"NUL in args", func(in *Input) { in.Container.Args = []string{"a\x00b"} }, "NUL"},
		{"NUL in env", func(in *Input) { in.Container.Envs[0].Value = []byte("secret\x00x") }, "NUL"},
		{"= in env name", func(in *Input) { in.Container.Envs[0].Key = "A=B" }, "not valid"},
		{"cwd below /proc", func(in *Input) { in.Container.WorkingDir = "/proc/self/fd/8" }, "/proc"},
		{"image cwd climbing into /proc", func(in *Input) { in.Image.WorkingDir = "/x/../proc/self/fd/8" }, "/proc"},
		{"cwd /proc", func(in *Input) { in.Image.WorkingDir = "//proc/" }, "/proc"},
		{"relative cwd", func(in *Input) { in.Image.WorkingDir = "proc/self/fd/8" }, "absolute"},
		{"mount with ..", func(in *Input) { in.Container.Mounts[0].ContainerPath = "/a/../../etc" }, ".."},
		{"mount at /", func(in *Input) { in.Container.Mounts[0].ContainerPath = "/" }, "not valid"},
		{"mount into /proc", func(in *Input) { in.Container.Mounts[0].ContainerPath = "/proc/sys" }, "/proc"},
		{"mount of a relative path", func(in *Input) { in.Container.Mounts[0].HostPath = "etc" }, "absolute"},
		{"bidirectional, unprivileged", func(in *Input) {
			in.Container.Mounts[0].Propagation = runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
		}, "privileged"},
		{"recursive read-only without support", func(in *Input) { in.Container.Mounts[0].RecursiveReadOnly = true }, "recursive"},
		{"image volume", func(in *Input) { in.Container.Mounts[0].Image = &runtimeapi.ImageSpec{Image: "x"} }, "image volumes"},
		{"unknown capability", func(in *Input) {
			security(in).Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"SYS_GOD"}}
		}, "does not exist"},
		{"capability that the daemon lacks", func(in *Input) {
			in.Host.Capabilities = []string{"CAP_CHOWN"}
			security(in).Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"SYS_RESOURCE"}}
		}, "does not have it"},
		{"cgroup outside the pod", func(in *Input) { in.CgroupsPath = "/kubepods/burstable/podabcd/c1" }, "not below"},
		{"cgroup climbing out", func(in *Input) { in.CgroupsPath = "/kubepods/burstable/podabc/../../../x" }, "not below"},
		{"cgroup in another slice", func(in *Input) {
			in.Sandbox.Linux.CgroupParent = "/kubepods.slice/kubepods-poda.slice"
			in.CgroupsPath = "system.slice:nodeagent:c1"
		}, "not below"},
		{"no cgroup parent", func(in *Input) { in.Sandbox.Linux.CgroupParent = "" }, "no cgroup parent"},
		{"sandbox id with a path", func(in *Input) { in.Group = "../x" }, "not valid"},
		{"CDI device", func(in *Input) { in.Container.CDIDevices = []*runtimeapi.CDIDevice{{Name: "v.io/c=d"}} }, "CDI"},
		{"seccomp on a kernel without", func(in *Input) { in.Host.Seccomp = false }, "no seccomp"},
		{"localhost seccomp not loaded", func(in *Input) {
			security(in).Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "p.json"}
		}, "not loaded"},
		{"localhost name with another type", func(in *Input) {
			security(in).Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined, LocalhostRef: "p.json"}
		}, "type is"},
		{"seccomp type unknown", func(in *Input) { security(in).Seccomp = &runtimeapi.SecurityProfile{ProfileType: 9} }, "unknown"},
		{"device outside /dev", func(in *Input) {
			in.Devices = []Device{{Node: specs.LinuxDevice{Path: "/dev/../etc/x", Type: "c"}, Permissions: "r"}}
		}, "/dev"},
		{"device permissions", func(in *Input) {
			in.Devices = []Device{{Node: specs.LinuxDevice{Path: "/dev/x", Type: "c"}, Permissions: "rx"}}
		}, "permissions"},
		{"huge pages without the controller", func(in *Input) {
			in.Host.Hugetlb = false
			in.Container.Linux.Resources.HugepageLimits = []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 1}}
		}, "hugetlb"},
		{"cgroup file with a path", func(in *Input) {
			in.Host.CgroupV2 = true
			in.Container.Linux.Resources.Unified = map[string]string{"../memory.max": "max"}
		}, "cgroup file"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			in := base()
			c.change(&in)
			_, err := Build(in)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("err = %v, want one with %q", err, c.want)
			}
			if !IsRefused(err) {
				t.Errorf("%v is not a refusal", err)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error quotes a variable's value: %v", err)
			}
		})
	}
}

func TestArgs(t *testing.T) {
	// The table of "Define a Command and Arguments for a Container".
	cases := []struct {
		command, args, want []string
	}{
		{nil, nil, []string{"/ep-1", "foo", "bar"}},
		{[]string{"/ep-2"}, nil, []string{"/ep-2"}},
		{nil, []string{"zoo", "boo"}, []string{"/ep-1", "zoo", "boo"}},
		{[]string{"/ep-2"}, []string{"zoo", "boo"}, []string{"/ep-2", "zoo", "boo"}},
	}
	image := ocispec.ImageConfig{Entrypoint: []string{"/ep-1"}, Cmd: []string{"foo", "bar"}}
	for _, c := range cases {
		got, err := args(&runtimeapi.ContainerConfig{Command: c.command, Args: c.args}, image)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("command %v args %v: %v, %v; want %v", c.command, c.args, got, err, c.want)
		}
	}
	got, err := args(&runtimeapi.ContainerConfig{}, ocispec.ImageConfig{Entrypoint: []string{""}, Cmd: []string{"sh"}})
	if err != nil || !slices.Equal(got, []string{"sh"}) {
		t.Errorf(`ENTRYPOINT [""] CMD sh: %v, %v`, got, err)
	}
}

func TestEnv(t *testing.T) {
	in := base()
	in.Container.Tty = true
	in.Image.Env = append(in.Image.Env, "no-variable", "=x", "NUL=\x00", "EMPTY=")
	in.Container.Envs = append(in.Container.Envs, &runtimeapi.KeyValue{Key: "HOSTNAME", Value: []byte("mine")})
	got, err := env(in)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"PATH=/bin", "TERM=xterm", "HOSTNAME=mine", "A=1", "B=2", "EMPTY="}
	if !slices.Equal(got, want) {
		t.Errorf("env = %q, want %q", got, want)
	}
}

func TestOOMScoreAdjIsClamped(t *testing.T) {
	for _, c := range []struct{ ask, least, want int }{
		{-997, -1000, -997}, {-997, 0, 0}, {-997, -500, -500}, {3, 0, 3}, {1000, 0, 1000}, {5000, 0, 1000}, {-5000, -5000, -1000},
	} {
		in := base()
		in.Host.OOMScoreAdjMin = c.least
		in.Container.Linux.Resources.OomScoreAdj = int64(c.ask)
		if got := *oomScoreAdj(in); got != c.want {
			t.Errorf("asked %d, least %d: %d, want %d", c.ask, c.least, got, c.want)
		}
	}
	in := base()
	in.Container.Linux.Resources = nil
	if s, err := Build(in); err != nil || s.Process.OOMScoreAdj == nil || *s.Process.OOMScoreAdj != 0 {
		t.Errorf("without resources: %+v, %v; want 0, not the shim's own", s.Process.OOMScoreAdj, err)
	}
}

func TestCapabilities(t *testing.T) {
	all := len(mustCaps(t, func(in *Input) { makePrivileged(in) }))
	cases := []struct {
		name      string
		add, drop []string
		want      int
		has, not  string
	}{
		{"default", nil, nil, 14, "CAP_NET_RAW", "CAP_SYS_ADMIN"},
		{"add", []string{"net_admin"}, nil, 15, "CAP_NET_ADMIN", "CAP_SYS_ADMIN"},
		{"add with prefix", []string{"CAP_NET_ADMIN"}, nil, 15, "CAP_NET_ADMIN", "CAP_SYS_ADMIN"},
		{"drop", nil, []string{"NET_RAW"}, 13, "CAP_CHOWN", "CAP_NET_RAW"},
		{"drop what does not exist", nil, []string{"NO_SUCH"}, 14, "CAP_CHOWN", "CAP_SYS_ADMIN"},
		{"drop all add one", []string{"CHOWN"}, []string{"ALL"}, 1, "CAP_CHOWN", "CAP_NET_RAW"},
		{"add all drop one", []string{"ALL"}, []string{"SYS_ADMIN"}, all - 1, "CAP_NET_ADMIN", "CAP_SYS_ADMIN"},
		{"add all, lower case", []string{"all"}, nil, all, "CAP_SYS_ADMIN", "CAP_NONE"},
		{"both all", []string{"ALL"}, []string{"ALL"}, 0, "", "CAP_CHOWN"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := mustCaps(t, func(in *Input) {
				security(in).Capabilities = &runtimeapi.Capability{AddCapabilities: c.add, DropCapabilities: c.drop}
			})
			if len(got) != c.want || c.has != "" && !slices.Contains(got, c.has) || slices.Contains(got, c.not) {
				t.Errorf("got %d: %v", len(got), got)
			}
		})
	}
	lacking := mustCaps(t, func(in *Input) {
		makePrivileged(in)
		in.Host.Capabilities = []string{"CAP_CHOWN", "CAP_KILL"}
	})
	if !slices.Equal(lacking, []string{"CAP_CHOWN", "CAP_KILL"}) {
		t.Errorf("privileged gets %v, more than the daemon has", lacking)
	}
}

func mustCaps(t *testing.T, change func(*Input)) []string {
	t.Helper()
	in := base()
	change(&in)
	s, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	return s.Process.Capabilities.Bounding
}

// TestMounts looks at what a golden file does not say: which default yields to
// a mount of the config.
func TestMounts(t *testing.T) {
	in := base()
	in.Container.Mounts = []*runtimeapi.Mount{
		{ContainerPath: "/a/b/c", HostPath: "/x"},
		{ContainerPath: "/dev/shm/", HostPath: "/x"},
		{ContainerPath: "a", HostPath: "/x", Propagation: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
		{ContainerPath: "/vol", HostPath: "/config"},
	}
	in.Volumes = []Volume{{HostPath: "/v1", ContainerPath: "/vol/"}, {HostPath: "/v2", ContainerPath: "/other"}}
	s, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range s.Mounts {
		if m.Type == "bind" {
			got = append(got, m.Source+":"+m.Destination)
		}
	}
	want := []string{"/x:/a", "/config:/vol", "/v2:/other", "/x:/dev/shm", "/x:/a/b/c"}
	if !slices.Equal(got, want) {
		t.Errorf("binds = %v, want %v", got, want)
	}
	if s.Linux.RootfsPropagation != "rslave" {
		t.Errorf("root propagation = %q, want rslave", s.Linux.RootfsPropagation)
	}
	in.Container.Mounts = []*runtimeapi.Mount{{ContainerPath: "/dev", HostPath: "/dev"}}
	if s, err = Build(in); err != nil {
		t.Fatal(err)
	}
	for _, m := range s.Mounts {
		if strings.HasPrefix(m.Destination, "/dev/") {
			t.Errorf("%s is mounted into a /dev of the config", m.Destination)
		}
	}
}

func TestWeight(t *testing.T) {
	// KEP-2254's examples, and the ends.
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 102: 4, 1024: 39, 2048: 79, 262144: 10000, 1 << 40: 10000} {
		if got := weightOf(shares); got != want {
			t.Errorf("weightOf(%d) = %d, want %d", shares, got, want)
		}
	}
	in := base()
	in.Host.CgroupV2 = true
	in.CPUWeight = 77
	s, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	if s.Linux.Resources.Unified["cpu.weight"] != "77" || s.Linux.Resources.CPU.Shares != nil {
		t.Errorf("unified = %v, shares = %v", s.Linux.Resources.Unified, s.Linux.Resources.CPU.Shares)
	}
}

func TestExecProcess(t *testing.T) {
	in := base()
	security(&in).Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"NET_ADMIN"}}
	s, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	// A spec from elsewhere may have what ours never has.
	s.Process.Capabilities.Inheritable = []string{"CAP_CHOWN"}
	s.Process.Capabilities.Ambient = []string{"CAP_CHOWN"}
	p, err := ExecProcess(s.Process, []string{"sh"}, true)
	if err != nil {
		t.Fatal(err)
	}
	if p.Capabilities.Inheritable != nil || p.Capabilities.Ambient != nil {
		t.Errorf("exec has inheritable or ambient capabilities: %+v", p.Capabilities)
	}
	if !p.Terminal || !slices.Contains(p.Env, "TERM=xterm") || !slices.Equal(p.Args, []string{"sh"}) || p.User.UID != 1000 {
		t.Errorf("process = %+v", p)
	}
	if shared := aliases(s.Process, p); shared != "" {
		t.Errorf("exec shares memory with the container's spec at %s", shared)
	}
	for _, bad := range [][]string{nil, {""}, {"a\x00"}} {
		if _, err := ExecProcess(s.Process, bad, false); !IsRefused(err) {
			t.Errorf("exec %q: %v", bad, err)
		}
	}
}
