package worker

import (
	"context"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/pod"
)

// Runtime shows what the container runtime holds. It answers from memory.
type Runtime interface {
	Synced() <-chan struct{}
	Pods() []types.UID
	Observe(uid types.UID) pod.RuntimeState
}

// Sandboxes makes and ends sandboxes.
type Sandboxes interface {
	// handler is the name of a runtime handler; "" is the default.
	RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error)
	StopPodSandbox(ctx context.Context, id string) error
	RemovePodSandbox(ctx context.Context, id string) error
}

// Containers makes and ends containers.
type Containers interface {
	CreateContainer(ctx context.Context, sandbox string, config *runtimeapi.ContainerConfig, in *runtimeapi.PodSandboxConfig) (string, error)
	StartContainer(ctx context.Context, id string) error
	StopContainer(ctx context.Context, id string, grace time.Duration) error
	RemoveContainer(ctx context.Context, id string) error
}

// Stops keeps what is known of the end of containers, and of their postStart hooks, over
// a restart of the daemon. What it keeps is part of pod.Container.
type Stops interface {
	// NoteStop notes that the container is to have ended after grace; hooked, that
	// its preStop hook needs no running any more; again, that it is to be started
	// afterwards. A later note may only shorten the time.
	NoteStop(ctx context.Context, id string, grace time.Duration, hooked, again bool) error
	// NotePostStart notes that the postStart hook has ended well.
	NotePostStart(ctx context.Context, id string) error
}

// Hooks runs lifecycle hooks. The error holds nothing that the hook said.
type Hooks interface {
	Run(ctx context.Context, h pod.Hook) error
}

// Images has images at hand, for a pod with these pull secrets. The string is
// what ContainerConfig.Image takes; the error's reason is one of pod's image
// reasons. What it does meanwhile it tells as an event's reason and message.
type Images interface {
	Ensure(ctx context.Context, image string, policy corev1.PullPolicy, secrets []*corev1.Secret, tell func(reason, message string)) (ref string, reason string, err error)
}

// Objects has the ConfigMaps and Secrets that pods refer to. It answers from
// memory. One that is not there is an error of which apierrors.IsNotFound is
// true; who has them calls Set.ObjectChanged when one comes, goes or changes.
// What is returned must not be changed; its values appear in no error.
type Objects interface {
	ConfigMap(namespace, name string) (*corev1.ConfigMap, error)
	Secret(namespace, name string) (*corev1.Secret, error)
}

// EnvFiles reads what containers leave for the variables of others.
type EnvFiles interface {
	// EnvFile reads a file in an emptyDir of the pod. It is hostile, and so is
	// the path.
	EnvFile(ctx context.Context, p *corev1.Pod, volume, path string) ([]byte, error)
}

// Services knows what pods are told of services by variables.
type Services interface {
	// Variables are those of the services in the namespace and of the API's own;
	// without links only of that one. It answers from memory, and with an error
	// until the services were read once.
	Variables(namespace string, links bool) (map[string]string, error)
}

// Cgroups owns the cgroup of each pod. RemovePod kills what is left in it.
type Cgroups interface {
	EnsurePod(ctx context.Context, uid types.UID, qos corev1.PodQOSClass, r pod.Resources) (parent string, err error)
	RemovePod(ctx context.Context, uid types.UID) error
}

// Network says whether pods that need a network can start; nil means yes.
type Network interface {
	Ready() error
}

// Dirs owns the directories of a pod on the node.
type Dirs interface {
	// Prepare makes the pod's directories and tells when it first did so, also in
	// an earlier daemon; zero: not known.
	Prepare(p *corev1.Pod) (time.Time, error)
	// Remove deletes them; name and namespace tell the log directory.
	Remove(ctx context.Context, uid types.UID, namespace, name string) error
	// LogDirectory is where the pod's containers log to.
	LogDirectory(uid types.UID, namespace, name string) string
	// NextAttempt is the number of the container's next run by the logs that
	// earlier ones left, for when the runtime has lost their records.
	NextAttempt(uid types.UID, namespace, name, container string) uint32
}

// Files owns the files that a container of the pod gets from the node.
type Files interface {
	// Etc writes hosts, hostname and resolv.conf and returns their mounts.
	Etc(p *corev1.Pod, addrs []netip.Addr) ([]*runtimeapi.Mount, error)
	// TerminationLog makes the file that the container may leave a message in.
	TerminationLog(p *corev1.Pod, container string, attempt uint32) (string, error)
	// TerminationMessage reads it, or the end of the log where the policy of
	// the container says so and it failed.
	TerminationMessage(p *corev1.Pod, c *corev1.Container, run pod.Container) string
	// Hostname is what the pod's UTS namespace is called.
	Hostname(p *corev1.Pod) (string, error)
}

// Volumes owns the volumes of pods.
type Volumes interface {
	// Setup makes the pod's volumes, and brings up to date what they show of
	// objects and of the pod. It may be called again at any time.
	Setup(ctx context.Context, p *corev1.Pod) error
	// Mounts returns what a container about to be made gets of them. Its subPaths
	// are expanded already.
	Mounts(ctx context.Context, p *corev1.Pod, c *corev1.Container) ([]*runtimeapi.Mount, error)
	// Remove unmounts them and deletes what they hold.
	Remove(ctx context.Context, uid types.UID) error
}

// Links owns the links to containers' logs under the names that log collectors
// look for.
type Links interface {
	LinkLog(p *corev1.Pod, container, id, log string) error
	UnlinkLog(namespace, name, container, id string) error
}

// Probes judges running containers.
type Probes interface {
	// Watch hands over what is wanted and what is there of a pod, at each turn
	// of its worker, and returns the verdicts so far by container id, which must
	// not be changed. It never blocks. A verdict that changes later wakes the
	// pod set; a pod of which nothing is left is forgotten.
	Watch(d pod.Desired, seen pod.RuntimeState) map[string]pod.Health
}

// Node holds the facts of the node that pods depend on.
type Node struct {
	// Addrs tells the node's addresses as they are now, the pods' addresses on the host
	// network; nil: there are none. It must not block. Who knows of a change calls
	// Set.WakeAll.
	Addrs func() []netip.Addr
	// MemoryCapacity in bytes, for oom_score_adj.
	MemoryCapacity int64
	// Allocatable is what the node has for pods, which a container without a
	// limit sees as its limit.
	Allocatable corev1.ResourceList
	// Limits are the node's choices that cgroup limits depend on.
	Limits pod.Limits
	// Unconfined tells that a pod that says nothing about seccomp gets no
	// profile, as kubelet has it by default; ours is RuntimeDefault.
	Unconfined bool
	// CgroupV2 tells that limits go to the unified hierarchy; SwapAccounting
	// that its kernel counts swap.
	CgroupV2, SwapAccounting bool
	// MinOOMScoreAdj is the lowest score that this process may give.
	MinOOMScoreAdj int
}

func (n *Node) addrs() []netip.Addr {
	if n.Addrs == nil {
		return nil
	}
	return n.Addrs()
}
