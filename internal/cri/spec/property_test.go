package spec

import (
	"encoding/json"
	"flag"
	"maps"
	"math/rand/v2"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var (
	rounds = flag.Int("rounds", 100_000, "random configs of the property test")
	seed   = flag.Uint64("seed", 1, "its seed")
)

// TestProperties is the security boundary as a whole: whatever configs and
// images say, what comes out keeps the invariants, or nothing comes out.
func TestProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(*seed, 0))
	built, refused := 0, 0
	var last *specs.Spec
	n := *rounds / part
	if testing.Short() {
		n /= 20
	}
	for i := range n {
		in := randomInput(r)
		before := snapshotOf(in, i)
		s, err := Build(in)
		if after := snapshotOf(in, i); before != after {
			t.Fatalf("round %d: the input was changed", i)
		}
		if err != nil {
			if !IsRefused(err) {
				t.Fatalf("round %d: %v is not a refusal", i, err)
			}
			refused++
			continue
		}
		built++
		if broken := invariants(in, s); broken != "" {
			b, _ := json.Marshal(s)
			t.Fatalf("round %d (seed %d): %s\n%s", i, *seed, broken, b)
		}
		// Reflection is slow: look at each twentieth.
		if i%20 == 0 {
			again, err := Build(in)
			if err != nil || !reflect.DeepEqual(again, s) {
				t.Fatalf("round %d: a second build differs (%v)", i, err)
			}
			for name, other := range map[string]any{"the input": in, "its twin": again, "the one before": last} {
				if shared := aliases(other, s); shared != "" {
					t.Fatalf("round %d: shares memory with %s: %s", i, name, shared)
				}
			}
			last = s
		}
	}
	if built < n/4 || refused < n/20 {
		t.Errorf("%d built, %d refused: the generator is out of balance", built, refused)
	}
}

// snapshotOf is the input as text; taken of every fiftieth round only.
func snapshotOf(in Input, round int) string {
	if round%50 != 0 {
		return ""
	}
	b, _ := json.Marshal(in)
	return string(b)
}

// invariants returns what is broken, "" for nothing. It is written against the
// OCI spec and shares no code with the builder.
func invariants(in Input, s *specs.Spec) string {
	sec := security(&in)
	privileged := sec.Privileged
	caps := s.Process.Capabilities
	switch {
	case len(caps.Inheritable) != 0 || len(caps.Ambient) != 0:
		return "inheritable or ambient capabilities"
	case !slices.Equal(caps.Bounding, caps.Permitted) || !slices.Equal(caps.Bounding, caps.Effective):
		return "capability sets differ"
	case s.Process.NoNewPrivileges != sec.NoNewPrivs:
		return "no_new_privs is not what was asked for"
	case !maps.Equal(s.Annotations, map[string]string{"io.containerd.runc.v2.group": in.Group}):
		return "annotations other than the group"
	case !path.IsAbs(s.Process.Cwd) || s.Process.Cwd != path.Clean(s.Process.Cwd):
		return "cwd is not a clean absolute path"
	case strings.HasPrefix(s.Process.Cwd+"/", "/proc/"):
		return "cwd lies in /proc"
	case s.Hostname != "" || s.Domainname != "" || s.Hooks != nil || len(s.Linux.Sysctl) != 0:
		return "hostname, hooks or sysctls"
	case s.Process.Rlimits != nil:
		return "rlimits"
	case s.Process.OOMScoreAdj == nil || *s.Process.OOMScoreAdj < in.Host.OOMScoreAdjMin || *s.Process.OOMScoreAdj > 1000:
		return "oom_score_adj out of range"
	case s.Root.Path != "rootfs" || s.Root.Readonly != sec.ReadonlyRootfs:
		return "root"
	case privileged && !in.Sandbox.Linux.SecurityContext.Privileged:
		return "privileged in an unprivileged sandbox"
	}
	for _, check := range []func(Input, *specs.Spec) string{seccompHolds, pathsHold, cgroupHolds, namespacesHold, mountsHold, devicesHold, capsHold} {
		if broken := check(in, s); broken != "" {
			return broken
		}
	}
	return ""
}

func seccompHolds(in Input, s *specs.Spec) string {
	sec := security(&in)
	unconfined := sec.Seccomp.GetProfileType() == runtimeapi.SecurityProfile_Unconfined && sec.Seccomp != nil
	if s.Linux.Seccomp == nil && !unconfined && !sec.Privileged {
		return "no seccomp, though Unconfined was not asked for"
	}
	if s.Linux.Seccomp != nil && (s.Linux.Seccomp.DefaultAction == "" || s.Linux.Seccomp.DefaultAction == specs.ActAllow) {
		return "a seccomp profile that filters nothing"
	}
	return ""
}

func pathsHold(in Input, s *specs.Spec) string {
	if security(&in).Privileged || in.UnmaskedProc {
		return ""
	}
	// Kubelet's lists, copied here once more on purpose.
	for _, p := range []string{"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"} {
		if !slices.Contains(s.Linux.MaskedPaths, p) {
			return p + " is not masked"
		}
	}
	for _, p := range []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"} {
		if !slices.Contains(s.Linux.ReadonlyPaths, p) {
			return p + " is not read-only"
		}
	}
	return ""
}

func cgroupHolds(in Input, s *specs.Spec) string {
	p, parent := s.Linux.CgroupsPath, in.Sandbox.Linux.CgroupParent
	if slice, _, ok := strings.Cut(p, ":"); ok {
		if slice != path.Base(parent) {
			return "slice of another pod"
		}
	} else if !strings.HasPrefix(path.Clean(p), parent+"/") {
		return "cgroup outside of the pod's"
	}
	if in.Host.CgroupV2 && s.Linux.Resources.CPU.Shares != nil {
		return "shares on cgroup v2"
	}
	return ""
}

func namespacesHold(in Input, s *specs.Spec) string {
	have := map[specs.LinuxNamespaceType]string{}
	for _, n := range s.Linux.Namespaces {
		if _, twice := have[n.Type]; twice {
			return "a namespace twice"
		}
		have[n.Type] = n.Path
	}
	opts := in.Sandbox.Linux.SecurityContext.NamespaceOptions
	_, mount := have[specs.MountNamespace]
	_, pid := have[specs.PIDNamespace]
	_, cgroup := have[specs.CgroupNamespace]
	switch {
	case !mount || have[specs.MountNamespace] != "":
		return "no mount namespace of its own"
	case have[specs.NetworkNamespace] == "" && opts.Network != runtimeapi.NamespaceMode_NODE:
		return "the host's network"
	case have[specs.IPCNamespace] == "" && opts.Ipc != runtimeapi.NamespaceMode_NODE:
		return "the host's IPC"
	case have[specs.UTSNamespace] == "" && opts.Network != runtimeapi.NamespaceMode_NODE:
		return "the host's UTS"
	case !pid && security(&in).NamespaceOptions.Pid != runtimeapi.NamespaceMode_NODE:
		return "the host's processes"
	case cgroup != (in.Host.CgroupV2 && !security(&in).Privileged):
		return "cgroup namespace"
	}
	return ""
}

func mountsHold(in Input, s *specs.Spec) string {
	sources := map[string]bool{"/dev/shm": in.ShmPath == "", in.ShmPath: true}
	for _, m := range in.Container.Mounts {
		sources[m.HostPath] = true
	}
	for _, v := range in.Volumes {
		sources[v.HostPath] = true
	}
	for _, m := range s.Mounts {
		rw := !slices.Contains(m.Options, "ro") && !slices.Contains(m.Options, "rro")
		switch {
		case m.Destination != path.Clean(m.Destination) || !path.IsAbs(m.Destination) || m.Destination == "/":
			return "mount destination " + m.Destination
		case m.Type == "bind" && !sources[m.Source]:
			return "a bind of what nobody asked for: " + m.Source
		case (m.Type == "sysfs" || m.Type == "cgroup") && rw && !security(&in).Privileged:
			return m.Type + " is writable"
		case slices.Contains(m.Options, "rshared") && !security(&in).Privileged:
			return "mounts leak to the host"
		}
	}
	return ""
}

func devicesHold(in Input, s *specs.Spec) string {
	if security(&in).Privileged {
		return ""
	}
	if len(s.Linux.Resources.Devices) == 0 || s.Linux.Resources.Devices[0].Allow {
		return "devices are not denied first"
	}
	if len(s.Linux.Devices) != len(in.Devices) {
		return "devices that nobody asked for"
	}
	return ""
}

func capsHold(in Input, s *specs.Spec) string {
	usual := strings.Fields("CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE")
	asked := security(&in).Capabilities
	if security(&in).Privileged || slices.ContainsFunc(asked.GetAddCapabilities(), func(c string) bool { return strings.EqualFold(c, "all") }) {
		return ""
	}
	for _, c := range s.Process.Capabilities.Bounding {
		name := strings.TrimPrefix(c, "CAP_")
		if !slices.Contains(usual, name) && !slices.ContainsFunc(asked.GetAddCapabilities(), func(a string) bool {
			return strings.EqualFold(strings.TrimPrefix(strings.ToUpper(a), "CAP_"), name)
		}) {
			return "capability nobody asked for: " + c
		}
	}
	return ""
}

// FuzzImageConfig feeds image configs as registries send them.
func FuzzImageConfig(f *testing.F) {
	f.Add([]byte(`{"Env":["A=1"],"Entrypoint":["/e"],"Cmd":["c"],"WorkingDir":"/proc/self/fd/7","User":"0","Volumes":{"/../etc":{}},"Labels":{"a":"b"}}`))
	f.Add([]byte(`{"Entrypoint":[""],"WorkingDir":"x","StopSignal":"99"}`))
	f.Add([]byte(`{"Cmd":["/c"],"WorkingDir":"/w","Volumes":{"data":{}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := base()
		in.Container.Command = nil
		in.Image = ocispec.ImageConfig{}
		if json.Unmarshal(b, &in.Image) != nil {
			return
		}
		StopSignal(in.Container, in.Image)
		paths, err := ImageVolumes(in.Image, in.Container.Mounts)
		if err != nil {
			return
		}
		for _, p := range paths {
			in.Volumes = append(in.Volumes, Volume{HostPath: "/vol", ContainerPath: p})
		}
		s, err := Build(in)
		if err != nil {
			return
		}
		if broken := invariants(in, s); broken != "" {
			t.Fatal(broken)
		}
		if shared := aliases(in, s); shared != "" {
			t.Fatal(shared)
		}
	})
}

func BenchmarkBuild(b *testing.B) {
	in := base()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Build(in); err != nil {
			b.Fatal(err)
		}
	}
}
