package spec

import (
	"fmt"
	"math/rand/v2"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// randomInput is an input with odd values in places that a pod or an image
// controls; most of it is sane, so that about half of them can be built.
func randomInput(r *rand.Rand) Input {
	in := base()
	odd := func(p float64) bool { return r.Float64() < p }
	in.Image = randomImage(r, odd)
	c := in.Container
	if odd(.5) {
		c.Command = nil
	}
	c.Args, c.Tty = randomStrings(r, odd), odd(.3)
	c.WorkingDir = pick(r, "", "", "", "/srv", "/srv/", "/a/../b")
	if odd(.05) {
		c.WorkingDir = nasty(r)
	}
	for range r.IntN(4) {
		c.Envs = append(c.Envs, &runtimeapi.KeyValue{Key: pick(r, "A", "B", "PATH", "HOSTNAME", "TERM"), Value: []byte(pick(r, "1", "", "x y"))})
	}
	c.Mounts = randomMounts(r, odd)
	c.Annotations = map[string]string{nasty(r): nasty(r)}
	in.Sandbox.Annotations = map[string]string{"io.containerd.runc.v2.group": "evil", nasty(r): nasty(r)}
	c.Labels = map[string]string{nasty(r): nasty(r)}
	randomSecurity(r, odd, &in)
	randomHost(r, odd, &in)
	if odd(.2) {
		mode := hostMode(0o600)
		in.Devices = []Device{{Node: specs.LinuxDevice{Path: pick(r, "/dev/x", "/dev/../etc/x"), Type: "c", FileMode: &mode}, Permissions: pick(r, "r", "rwm", "", "z")}}
	}
	in.Volumes = nil
	paths, err := ImageVolumes(in.Image, c.Mounts)
	for i, p := range paths {
		if err == nil {
			in.Volumes = append(in.Volumes, Volume{HostPath: fmt.Sprintf("/vol/%d", i), ContainerPath: p})
		}
	}
	return in
}

func randomImage(r *rand.Rand, odd func(float64) bool) ocispec.ImageConfig {
	img := ocispec.ImageConfig{
		User: nasty(r), Env: randomStrings(r, odd), Entrypoint: []string{pick(r, "/e", "e", "")}, Cmd: randomStrings(r, odd),
		WorkingDir: pick(r, "", "/w", "/w/x/"), StopSignal: nasty(r),
		Labels:       map[string]string{"containerd.io/gc.root": "x", nasty(r): nasty(r)},
		ExposedPorts: map[string]struct{}{nasty(r): {}},
		Volumes:      map[string]struct{}{pick(r, "/v", "/data", "/a/b/c"): {}},
	}
	if odd(.1) {
		img.WorkingDir = nasty(r)
	}
	if odd(.1) {
		img.Volumes[nasty(r)] = struct{}{}
	}
	return img
}

func randomMounts(r *rand.Rand, odd func(float64) bool) (out []*runtimeapi.Mount) {
	for i := range r.IntN(4) {
		m := &runtimeapi.Mount{
			ContainerPath: pick(r, "/data", "/data/in", "/etc/hosts", "/dev/shm", "/sys", "/dev", "rel", "/proc/meminfo"),
			HostPath:      fmt.Sprintf("/host/%d", i), Readonly: odd(.3),
		}
		if odd(.1) {
			m.Propagation = runtimeapi.MountPropagation(r.IntN(4))
		}
		if odd(.05) {
			m.ContainerPath = nasty(r)
		}
		if odd(.03) {
			m.HostPath = nasty(r)
		}
		out = append(out, m)
	}
	return out
}

func randomSecurity(r *rand.Rand, odd func(float64) bool, in *Input) {
	sec := security(in)
	sec.NoNewPrivs, sec.ReadonlyRootfs = odd(.5), odd(.3)
	if odd(.15) {
		makePrivileged(in)
		in.Sandbox.Linux.SecurityContext.Privileged = odd(.9)
	}
	if odd(.4) {
		names := []string{"ALL", "all", "NET_ADMIN", "SYS_ADMIN", "chown", "CAP_KILL", "NET_RAW"}
		if odd(.1) {
			names = append(names, nasty(r))
		}
		sec.Capabilities = &runtimeapi.Capability{AddCapabilities: some(r, names), DropCapabilities: some(r, names)}
	}
	if odd(.4) {
		sec.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_ProfileType(r.IntN(3))}
		if sec.Seccomp.ProfileType == runtimeapi.SecurityProfile_Localhost && odd(.8) {
			in.LocalhostProfile = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow}}}
		}
	}
	if odd(.3) {
		sec.MaskedPaths, sec.ReadonlyPaths = []string{}, []string{"/proc/more"}
	}
	if odd(.15) {
		// Configs and paths that need not agree.
		mode := func() runtimeapi.NamespaceMode { return runtimeapi.NamespaceMode(r.IntN(3)) }
		in.Sandbox.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{Network: mode(), Ipc: mode(), Pid: mode()}
		sec.NamespaceOptions = &runtimeapi.NamespaceOption{Network: mode(), Ipc: mode(), Pid: runtimeapi.NamespaceMode(r.IntN(4))}
		in.Namespaces = Namespaces{Net: pick(r, "", "/n"), IPC: pick(r, "", "/i"), UTS: pick(r, "", "/u"), PID: PID(r.IntN(3)), PIDPath: pick(r, "", "/p")}
		in.ShmPath = pick(r, "", "/shm")
	}
}

func randomHost(r *rand.Rand, odd func(float64) bool, in *Input) {
	in.Host = Host{CgroupV2: odd(.5), Swap: odd(.5), Hugetlb: odd(.8), Seccomp: odd(.97), OOMScoreAdjMin: pick(r, -1000, 0, 500),
		CgroupOptions: []string{"nsdelegate"}, ThermalPaths: []string{"/sys/devices/system/cpu/cpu0/thermal_throttle"}}
	if odd(.3) {
		in.Host.Capabilities = []string{"CAP_CHOWN", "CAP_NET_ADMIN", "CAP_KILL"}
	}
	res := in.Container.Linux.Resources
	res.OomScoreAdj = int64(r.IntN(2400) - 1200)
	res.CpuShares, res.MemoryLimitInBytes = int64(r.IntN(300000)-10), int64(r.IntN(1<<30))
	if odd(.2) {
		res.Unified = map[string]string{"memory.high": "1", pick(r, "io.max", "x", "../y"): "1"}
	}
	if odd(.2) {
		in.Sandbox.Linux.CgroupParent = "/kubepods.slice/kubepods-poda.slice"
		in.CgroupsPath = pick(r, "kubepods-poda.slice:nodeagent:c1", "kubepods-poda.slice:nodeagent:c1", "kubepods-podb.slice:nodeagent:c1", "kubepods-poda.slice::c1")
	}
	if odd(.05) {
		in.CgroupsPath = pick(r, "/", "/kubepods/burstable/podabc", "/kubepods/burstable/podabc/../x", "relative", "")
	}
}

var nastyStrings = []string{
	"", "/", ".", "..", "/..", "../../etc", "/proc", "/proc/self/fd/7", "//proc/self/", "/x/../proc/1/root", "/sys", "/dev/shm", "a\x00b",
	"/a\nb", "-1", "0", " 0", "4294967296", "root", "CAP_", "ALL ", "io.containerd.runc.v2.group", "containerd.io/gc.ref", "\x1b[2J", "٠", "/proc/sys/kernel/core_pattern",
	strings.Repeat("a", 5000), "/./proc/", "/etc/../proc/self",
}

func nasty(r *rand.Rand) string { return nastyStrings[r.IntN(len(nastyStrings))] }

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func some(r *rand.Rand, of []string) (out []string) {
	for _, s := range of {
		if r.IntN(4) == 0 {
			out = append(out, s)
		}
	}
	return out
}

func randomStrings(r *rand.Rand, odd func(float64) bool) (out []string) {
	for range r.IntN(4) {
		out = append(out, pick(r, "a", "A=1", "PATH=/x", "--flag", "x y"))
	}
	if odd(.05) {
		out = append(out, nasty(r))
	}
	return out
}
