package worker

import (
	"fmt"
	"math/rand/v2"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/cri/spec"
)

type dice struct{ *rand.Rand }

func (d dice) odd(p float64) bool { return d.Float64() < p }

func pick[T any](d dice, of ...T) T { return of[d.IntN(len(of))] }

// mostly is the first, and now and then one of the others, which rule a
// container out.
func mostly[T any](d dice, good T, bad ...T) T {
	if d.odd(.95) {
		return good
	}
	return pick(d, bad...)
}

// maybe is nothing half of the time.
func maybe[T any](d dice, of ...T) *T {
	if d.odd(.5) {
		return nil
	}
	v := pick(d, of...)
	return &v
}

// randomPod is mostly valid, with odd values where its author may put any.
func randomPod(r *rand.Rand) *corev1.Pod {
	d := dice{r}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: pick(d, "web-node", "a", "x.y-node"), Namespace: "default", UID: types.UID(fmt.Sprintf("%08x", d.Uint32())),
		Labels: map[string]string{pick(d, "app", "containerd.io/gc.root", "io.nodeagent.kind", "io.kubernetes.pod.uid.x"): pick(d, "evil", "")},
		Annotations: map[string]string{
			pick(d, "io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id", "kubernetes.io/ingress-bandwidth", "io.nodeagent.run-as-non-root"): pick(d, "evil", "1M", "false"),
		},
	}}
	s := &p.Spec
	s.RestartPolicy = pick(d, corev1.RestartPolicyAlways, corev1.RestartPolicyNever, corev1.RestartPolicyOnFailure)
	s.HostNetwork, s.HostPID, s.HostIPC = d.odd(.15), d.odd(.1), d.odd(.1)
	if !s.HostPID && d.odd(.2) {
		s.ShareProcessNamespace = new(d.odd(.7))
	}
	s.TerminationGracePeriodSeconds = maybe(d, int64(0), 5)
	s.Hostname = pick(d, "", "h", strings.Repeat("h", 63))
	s.SecurityContext = podSecurity(d, s)
	if d.odd(.2) {
		s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	}
	for i := range d.IntN(2) {
		s.InitContainers = append(s.InitContainers, randomContainer(d, fmt.Sprintf("i%d", i), len(s.Volumes) > 0))
		s.InitContainers[i].RestartPolicy = maybe(d, corev1.ContainerRestartPolicyAlways)
	}
	for i := range 1 + d.IntN(2) {
		s.Containers = append(s.Containers, randomContainer(d, fmt.Sprintf("c%d", i), len(s.Volumes) > 0))
	}
	return p
}

func podSecurity(d dice, s *corev1.PodSpec) *corev1.PodSecurityContext {
	if d.odd(.3) {
		return nil
	}
	sc := &corev1.PodSecurityContext{
		RunAsUser: maybe(d, ids...), RunAsGroup: maybe(d, ids...), RunAsNonRoot: maybe(d, true, false), FSGroup: maybe(d, ids...),
		SupplementalGroupsPolicy: maybe(d, corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict),
		SeccompProfile:           seccompOf(d),
		AppArmorProfile:          maybe(d, armors...),
	}
	for range d.IntN(3) {
		sc.SupplementalGroups = append(sc.SupplementalGroups, pick(d, ids...))
	}
	if !s.HostNetwork && d.odd(.2) {
		sc.Sysctls = []corev1.Sysctl{{Name: pick(d, "net.ipv4.tcp_syncookies", "net/ipv4/tcp_rmem"), Value: pick(d, "1", "\n", "")}}
	}
	return sc
}

var armors = []corev1.AppArmorProfile{
	{Type: corev1.AppArmorProfileTypeUnconfined}, {Type: corev1.AppArmorProfileTypeRuntimeDefault},
	{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: new("mine")},
}

var ids = []int64{0, 1, 1000, 65534, 1<<31 - 1}

func seccompOf(d dice) *corev1.SeccompProfile {
	switch d.IntN(5) {
	case 0:
		return &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}
	case 1:
		return &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	case 2:
		return &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: new("a/p.json")}
	}
	return nil
}

func randomContainer(d dice, name string, volume bool) corev1.Container {
	c := corev1.Container{
		Name: name, Image: pick(d, "a", "r.example/a@sha256:"+strings.Repeat("0", 64), "a:v1"),
		Command: texts(d), Args: texts(d), WorkingDir: mostly(d, pick(d, "", "/srv/", "/a/../b"), "/proc/self/fd/7", "rel", "/x/../proc/1"),
		TTY: d.odd(.2), Stdin: d.odd(.2), SecurityContext: containerSecurity(d),
		TerminationMessagePath: mostly(d, pick(d, "", "/dev/termination-log"), "/tmp/../m", "/proc/m"),
	}
	for range d.IntN(4) {
		c.Env = append(c.Env, corev1.EnvVar{
			Name: pick(d, "A", "B", "PATH", "HOSTNAME", "TERM", "LD_PRELOAD"), Value: mostly(d, pick(d, canary, canary+"\n", "$(A)"+canary, "$$(A)", ""), canary+"\x00"),
		})
	}
	if volume && d.odd(.7) {
		c.VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: mostly(d, pick(d, "/data", "/etc/hosts", "/dev/shm", "/a/../etc"), "/proc/x", "/sys"), ReadOnly: d.odd(.5)}}
	}
	c.Resources = resources(d)
	return c
}

func resources(d dice) corev1.ResourceRequirements {
	r := corev1.ResourceRequirements{Limits: corev1.ResourceList{}, Requests: corev1.ResourceList{}}
	if d.odd(.4) {
		r.Limits[corev1.ResourceMemory] = resource.MustParse(pick(d, "6Mi", "64Mi", "1Gi"))
	}
	if d.odd(.4) {
		r.Limits[corev1.ResourceCPU] = resource.MustParse(pick(d, "1m", "250m", "64"))
	}
	if d.odd(.3) {
		r.Requests[corev1.ResourceMemory] = resource.MustParse("4Mi")
	}
	if d.odd(.3) {
		r.Requests[corev1.ResourceCPU] = resource.MustParse("1m")
	}
	return r
}

func containerSecurity(d dice) *corev1.SecurityContext {
	if d.odd(.3) {
		return nil
	}
	sc := &corev1.SecurityContext{
		RunAsUser: maybe(d, ids...), RunAsGroup: maybe(d, ids...), RunAsNonRoot: maybe(d, true, false),
		ReadOnlyRootFilesystem: maybe(d, true, false), SeccompProfile: seccompOf(d),
		ProcMount:       maybe(d, corev1.DefaultProcMount),
		AppArmorProfile: maybe(d, armors...),
	}
	switch d.IntN(4) {
	case 0:
		sc.Privileged = new(true)
	case 1:
		sc.AllowPrivilegeEscalation = new(false)
	}
	if d.odd(.5) {
		names := []corev1.Capability{"ALL", "all", "NET_ADMIN", "CAP_SYS_PTRACE", "chown", "CAP_KILL", "NET_RAW", "NO_SUCH"}
		sc.Capabilities = &corev1.Capabilities{}
		for range d.IntN(3) {
			sc.Capabilities.Add = append(sc.Capabilities.Add, pick(d, names[:len(names)-1+d.IntN(20)/19]...))
			sc.Capabilities.Drop = append(sc.Capabilities.Drop, pick(d, names[:len(names)-1]...))
		}
	}
	return sc
}

func texts(d dice) (out []string) {
	for range d.IntN(3) {
		out = append(out, pick(d, "/bin/app", "a", "--flag=x y", "$(A)", "$(NO)", "$$(A)", "\x1b[2J"))
	}
	if d.odd(.02) {
		out = append(out, pick(d, "", "a\x00b"))
	}
	return out
}

// imageParts are an image as a registry may send it.
type imageParts struct {
	config   ocispec.ImageConfig
	accounts spec.Accounts
}

func randomImage(r *rand.Rand) imageParts {
	d := dice{r}
	img := imageParts{config: ocispec.ImageConfig{
		User: mostly(d, pick(d, "", "0", "1000", "1000:2000", "nobody", "nobody:50", "root"), "evil", "big", "4294967296", "-1", "1:4294967296", " 0", "٠", "+0", "0:0:0", "nobody:none"),
		Env:  []string{pick(d, "PATH=/x", "A=image", "=", "", "A", "B=a\x00b")}, Entrypoint: []string{pick(d, "/e", "e", "/entry")},
		Cmd: texts(d), WorkingDir: mostly(d, pick(d, "", "/w/"), "w", "/proc/self/fd/7", "/./proc/"),
		Labels: map[string]string{"containerd.io/gc.root": "x", "io.containerd.runc.v2.group": "evil"},
	}}
	if d.odd(.2) {
		img.config.Volumes = map[string]struct{}{mostly(d, pick(d, "/v", "/data/"), "/../../etc", "", ".", "/proc", "/dev/shm"): {}}
	}
	if d.odd(.95) {
		img.accounts = spec.Accounts{
			Passwd: []byte("root:x:0:0::/:\nnobody:x:65534:65534::/:\nevil:x:zero:0::/:\nbig:x:4294967296:0::/:\n1000:x:0:0::/:\n"),
			Group:  []byte("root:x:0:\nstaff:x:50:nobody\nwheel:x:10:nobody,root,evil\nodd:x:" + mostly(d, "7", "-1", "99999999999") + ":nobody\n"),
		}
	}
	return img
}

func randomHost(r *rand.Rand) spec.Host {
	d := dice{r}
	return spec.Host{
		CgroupV2: d.odd(.5), Swap: d.odd(.5), Hugetlb: true, Seccomp: true,
		OOMScoreAdjMin: pick(d, -1000, -1000, 0, 300), CgroupOptions: []string{"nsdelegate"},
	}
}
