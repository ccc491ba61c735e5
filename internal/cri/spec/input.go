package spec

import (
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// GroupAnnotation is the OCI annotation that groups the containers of a sandbox
// under one shim; the only one that a spec ever has.
const GroupAnnotation = "io.containerd.runc.v2.group"

// Input is everything that a container's spec depends on. Nothing in it is
// changed or kept.
type Input struct {
	ContainerID string
	Sandbox     *runtimeapi.PodSandboxConfig
	Container   *runtimeapi.ContainerConfig
	Image       ocispec.ImageConfig // hostile
	Host        Host

	Namespaces Namespaces
	User       specs.User // from ResolveUser

	// Hostname is for the HOSTNAME variable only (the name itself is in the UTS
	// namespace); "" means that of the sandbox config.
	Hostname string

	// ShmPath is the sandbox's /dev/shm on the host; "" with the host's IPC
	// namespace, where it is the host's.
	ShmPath string

	// CgroupsPath is what runc is told: an absolute path with the cgroupfs
	// driver, "slice:prefix:name" with the systemd driver. It must lie below
	// the sandbox config's cgroup parent.
	CgroupsPath string
	// CPUWeight is cpu.weight (1..10000) on cgroup v2; 0 means: by KEP-2254
	// from the CPU shares. It goes through resources.unified, because runc's
	// versions convert shares differently.
	CPUWeight uint64

	// Group is the sandbox id, the value of GroupAnnotation.
	Group string

	// LocalhostProfile is what LoadSeccomp read; needed where the container's
	// seccomp profile is of type Localhost.
	LocalhostProfile *specs.LinuxSeccomp
	// AppArmorProfile is the name of the loaded profile; "" for none.
	AppArmorProfile string
	// UnmaskedProc is procMount Unmasked: no masked and read-only paths.
	UnmaskedProc bool

	// HostDevices are what a privileged container gets, from HostDevices().
	HostDevices []specs.LinuxDevice
	// Devices are those of the CRI config, from Devices().
	Devices []Device
	// Volumes are the anonymous volumes that ImageVolumes asked for, made by
	// the caller.
	Volumes []Volume

	// RecursiveReadOnly tells that the OCI runtime knows the mount option rro.
	RecursiveReadOnly bool
}

// Namespaces are the paths of namespaces to join. An empty path of Net, IPC or
// UTS is the host's own, and refused unless the sandbox config asks for that.
type Namespaces struct {
	Net, IPC, UTS string
	PID           PID
	// PIDPath is the namespace to join where PID is PIDJoin.
	PIDPath string
}

// PID says which PID namespace a container gets.
type PID int

// The choices of a PID namespace.
const (
	PIDOwn  PID = iota // a new one for this container
	PIDHost            // the host's
	PIDJoin            // that of Namespaces.PIDPath: the pod's or a target's
)

// Device is a device of the CRI config after its host path was resolved.
type Device struct {
	Node        specs.LinuxDevice
	Permissions string // of the letters r, w, m
}

// Volume is a directory on the host that stands for a VOLUME of the image.
type Volume struct {
	HostPath      string
	ContainerPath string
}
