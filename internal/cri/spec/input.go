package spec

import (
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// GroupAnnotation groups the containers of a sandbox under one shim.
const GroupAnnotation = "io.containerd.runc.v2.group"

// Input is everything that a container's spec depends on. Nothing in it is
// changed or kept.
type Input struct {
	ContainerID string
	Sandbox     *runtimeapi.PodSandboxConfig
	Container   *runtimeapi.ContainerConfig
	Image       ocispec.ImageConfig // hostile

	Namespaces Namespaces
	User       specs.User // from ResolveUser

	// Hostname is the pod's hostname, for the HOSTNAME variable only: the name
	// itself is in the UTS namespace.
	Hostname string

	// ShmPath is the sandbox's /dev/shm on the host; "" with the host's IPC
	// namespace.
	ShmPath string

	// CgroupsPath is what runc is told: an absolute path with the cgroupfs
	// driver, "slice:prefix:name" with the systemd driver. It must lie below
	// the sandbox's cgroup parent where that is set.
	CgroupsPath string
	CgroupV2    bool
	// CPUWeight is cpu.weight (1..10000) on v2, worked out by cgroups from the
	// shares; 0 leaves it out. It goes through resources.unified, because
	// runc's versions convert shares differently.
	CPUWeight uint64
	// Swap tells that the kernel can limit swap: then memory.swap is set so
	// that a container with a memory limit cannot swap.
	Swap bool
	// Hugetlb tells that the kernel has the hugetlb controller.
	Hugetlb bool

	// Group is the sandbox id, the value of GroupAnnotation.
	Group string

	// OOMScoreAdjMin is the lowest oom_score_adj that this process may give;
	// -1000 where it has CAP_SYS_RESOURCE, otherwise its own score.
	OOMScoreAdjMin int

	// Seccomp tells that the kernel has seccomp filters. Without them a
	// container that asks for a profile is refused.
	Seccomp bool
	// LocalhostProfile is the profile that LoadSeccomp read; needed where the
	// container's seccomp profile is Localhost.
	LocalhostProfile *specs.LinuxSeccomp

	// AppArmorProfile is the loaded profile's name; "" for none.
	AppArmorProfile string

	// HostDevices are what a privileged container gets; from HostDevices().
	HostDevices []specs.LinuxDevice
	// Devices are the resolved devices of the CRI config; from Devices().
	Devices []Device

	// Volumes are the anonymous volumes that ImageVolumes asked for, made by
	// the caller.
	Volumes []Volume

	// RecursiveReadOnly tells that the OCI runtime knows the mount option rro.
	RecursiveReadOnly bool
}

// Namespaces are the paths of namespaces to join. An empty path of Net, IPC or
// UTS is the host's own.
type Namespaces struct {
	Net, IPC, UTS string
	PID           PID
	// PIDPath is the namespace to join where PID is PIDPath.
	PIDPath string
}

// PID says which PID namespace a container gets.
type PID int

// The choices of a PID namespace.
const (
	PIDOwn  PID = iota // a new one for this container
	PIDHost            // the host's
	PIDPath            // that of Namespaces.PIDPath: the pod's or a target's
)

// Device is a device of the CRI config after its host path was resolved.
type Device struct {
	Device      specs.LinuxDevice
	Permissions string // of the letters r, w, m
}

// Volume is a directory on the host that stands for a VOLUME of the image.
type Volume struct {
	HostPath      string
	ContainerPath string
}
