package worker

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/cri/spec"
	"nodeagent/internal/pod"
	"nodeagent/internal/pod/validate"
)

var (
	randomPods = flag.Int("pods", 100_000, "random pods of the test of specs")
	podsSeed   = flag.Uint64("pods-seed", 1, "its seed")
)

// TestSpecsOfRandomPods takes random valid pods the whole way that the daemon
// takes them, with images that are hostile: defaults, validation, admission, what
// the worker asks of the runtime, the OCI spec. What comes out has the
// invariants of the security boundary, told in the words of the pod; -pods sets
// how many.
func TestSpecsOfRandomPods(t *testing.T) {
	r := rand.New(rand.NewPCG(*podsSeed, 0))
	pods, built, refused := 0, 0, 0
	n := *randomPods / part
	if testing.Short() {
		n /= 20
	}
	for tries := 0; pods < n; tries++ {
		if tries > 3*n+1000 {
			t.Fatalf("%d of %d pods only are valid: the generator is out of balance", pods, tries)
		}
		p := randomPod(r)
		validate.Default(p)
		if errs := validate.Validate(p); len(errs) > 0 {
			if tries < 20 {
				t.Log(errs.ToAggregate())
			}
			continue
		}
		pods++
		if pod.Admit(p, pod.Allowed{}) != nil {
			continue
		}
		made := newMaker(r, p)
		for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
			in, s, err := made.spec(t.Context(), &c)
			if err != nil {
				if strings.Contains(err.Error(), canary) {
					t.Fatalf("pod %d (seed %d): a variable's value is in the error %q", pods, *podsSeed, err)
				}
				refused++
				continue
			}
			built++
			if why := made.broken(&c, in, s); why != "" {
				from, _ := json.Marshal(p)
				to, _ := json.Marshal(s)
				t.Fatalf("pod %d (seed %d), container %s: %s\npod %s\nimage %+v\nspec %s", pods, *podsSeed, c.Name, why, from, made.image.config, to)
			}
		}
	}
	t.Logf("%d pods, %d specs built, %d containers refused", pods, built, refused)
	if built < n || refused < n/20 {
		t.Errorf("%d specs built of %d pods, %d refused: the generator is out of balance", built, pods, refused)
	}
}

// maker is a node that makes one pod's containers up to their specs.
type maker struct {
	set    *Set
	pod    *corev1.Pod
	image  imageParts
	host   spec.Host
	config *runtimeapi.ContainerConfig // what the worker asked for last
	in     *runtimeapi.PodSandboxConfig
}

func newMaker(r *rand.Rand, p *corev1.Pod) *maker {
	m := &maker{pod: p, image: randomImage(r), host: randomHost(r)}
	m.set = &Set{slots: newSlots(1, time.Minute), cfg: Config{
		Runtime: m, Containers: m, Images: m, Cgroups: m, Dirs: m, Files: m, Volumes: nodeVolumes{}, Links: m, Objects: noObjects{},
		Logger: quietLogger,
		Node: Node{
			Addrs: func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.1")} }, MemoryCapacity: 1 << 34, CgroupV2: m.host.CgroupV2,
			SwapAccounting: m.host.Swap, MinOOMScoreAdj: m.host.OOMScoreAdjMin, Unconfined: r.IntN(4) == 0,
			Limits: pod.Limits{PodPids: 4096},
		},
	}}
	return m
}

// spec does what the daemon does for one container, and the runtime's part as
// internal/cri has it.
func (m *maker) spec(ctx context.Context, c *corev1.Container) (spec.Input, *specs.Spec, error) {
	w := newWorker(m.set, m.pod.UID, m.pod.Namespace+"/"+m.pod.Name, pod.Desired{Wish: pod.WishRun, Pod: m.pod}, false)
	defer w.unwanted()
	m.config = nil
	if _, err := m.set.startContainer(ctx, w, pod.Action{Kind: pod.StartContainer, Name: c.Name, Sandbox: "s1"}, w.desired); err != nil {
		return spec.Input{}, nil, err
	}
	sec := m.config.Linux.SecurityContext
	in := spec.Input{
		ContainerID: "c1", Sandbox: m.in, Container: m.config, Image: m.image.config, Host: m.host, Group: "s1",
		CgroupsPath: m.in.Linux.CgroupParent + "/c1",
	}
	m.namespaces(&in)
	if sec.GetSeccomp().GetProfileType() == runtimeapi.SecurityProfile_Localhost {
		in.LocalhostProfile = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	}
	if sec.GetPrivileged() {
		in.HostDevices = []specs.LinuxDevice{{Path: "/dev/kvm", Type: "c", Major: 10, Minor: 232}}
	}
	var err error
	in.User, err = spec.ResolveUser(spec.UserRequest{
		ImageUser: m.image.config.User, Security: sec, Accounts: m.image.accounts,
		NonRoot: m.config.Annotations[pod.AnnotationNonRoot] == "true", Pod: m.pod.Name, Name: c.Name,
	})
	if err != nil {
		return in, nil, err
	}
	paths, err := spec.ImageVolumes(m.image.config, m.config.Mounts)
	if err != nil {
		return in, nil, err
	}
	for i, path := range paths {
		in.Volumes = append(in.Volumes, spec.Volume{HostPath: fmt.Sprintf("/vol/%d", i), ContainerPath: path})
	}
	s, err := spec.Build(in)
	return in, s, err
}

// namespaces are those that a sandbox of the pod would have.
func (m *maker) namespaces(in *spec.Input) {
	if !m.pod.Spec.HostNetwork {
		in.Namespaces.Net, in.Namespaces.UTS = "/run/netns/cni-1", "/run/nodeagent/ns/s1/uts"
	}
	if !m.pod.Spec.HostIPC {
		in.Namespaces.IPC, in.ShmPath = "/run/nodeagent/ns/s1/ipc", "/run/nodeagent/ns/s1/shm"
	}
	switch m.config.Linux.SecurityContext.NamespaceOptions.Pid {
	case runtimeapi.NamespaceMode_NODE:
		in.Namespaces.PID = spec.PIDHost
	case runtimeapi.NamespaceMode_POD:
		in.Namespaces.PID, in.Namespaces.PIDPath = spec.PIDJoin, "/run/nodeagent/ns/s1/pid"
	}
}

// What follows are the collaborators of a Set, as small as can be.

func (m *maker) Synced() <-chan struct{} { return nil }
func (m *maker) Pods() []types.UID       { return nil }
func (m *maker) Observe(types.UID) pod.RuntimeState {
	return pod.RuntimeState{Sandboxes: []pod.Sandbox{{ID: "s1", State: pod.SandboxReady, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}}}
}

func (m *maker) CreateContainer(_ context.Context, _ string, config *runtimeapi.ContainerConfig, in *runtimeapi.PodSandboxConfig) (string, error) {
	m.config, m.in = config, in
	return "c1", nil
}
func (m *maker) StartContainer(context.Context, string) error               { return nil }
func (m *maker) StopContainer(context.Context, string, time.Duration) error { return nil }
func (m *maker) RemoveContainer(context.Context, string) error              { return nil }

func (m *maker) Ensure(_ context.Context, image string, _ corev1.PullPolicy, _ []*corev1.Secret, _ func(reason, message string)) (string, string, error) {
	return image, "", nil
}

func (m *maker) EnsurePod(_ context.Context, uid types.UID, qos corev1.PodQOSClass, _ pod.Resources) (string, error) {
	return "/kubepods/" + strings.ToLower(string(qos)) + "/pod" + string(uid), nil
}
func (m *maker) RemovePod(context.Context, types.UID) error { return nil }

func (m *maker) Prepare(*corev1.Pod) (time.Time, error)                  { return time.Time{}, nil }
func (m *maker) Remove(context.Context, types.UID, string, string) error { return nil }
func (m *maker) LogDirectory(uid types.UID, _, _ string) string {
	return "/var/log/pods/" + string(uid)
}
func (m *maker) NextAttempt(types.UID, string, string, string) uint32 { return 0 }
func (m *maker) LinkLog(*corev1.Pod, string, string, string) error    { return nil }
func (m *maker) UnlinkLog(string, string, string, string) error       { return nil }
func (m *maker) TerminationLog(*corev1.Pod, string, uint32) (string, error) {
	return nodeFile + "message", nil
}
func (m *maker) Hostname(p *corev1.Pod) (string, error)                                  { return p.Name, nil }
func (m *maker) TerminationMessage(*corev1.Pod, *corev1.Container, pod.Container) string { return "" }
func (m *maker) Etc(*corev1.Pod, []netip.Addr) ([]*runtimeapi.Mount, error) {
	return []*runtimeapi.Mount{{ContainerPath: "/etc/hosts", HostPath: nodeFile + "hosts"}}, nil
}

// nodeFile begins the paths of all that the node mounts into a container.
const nodeFile = "/var/lib/kubelet/pods/u/"

type nodeVolumes struct{}

func (nodeVolumes) Setup(context.Context, *corev1.Pod) error { return nil }
func (nodeVolumes) Remove(context.Context, types.UID) error  { return nil }
func (nodeVolumes) Mounts(_ context.Context, _ *corev1.Pod, c *corev1.Container) (all []*runtimeapi.Mount, err error) {
	for _, v := range c.VolumeMounts {
		all = append(all, &runtimeapi.Mount{ContainerPath: v.MountPath, HostPath: nodeFile + v.Name, Readonly: v.ReadOnly})
	}
	return all, nil
}

type noObjects struct{}

func (noObjects) ConfigMap(_, name string) (*corev1.ConfigMap, error) {
	return nil, fmt.Errorf("no config map %q", name)
}
func (noObjects) Secret(_, name string) (*corev1.Secret, error) {
	return nil, fmt.Errorf("no secret %q", name)
}
