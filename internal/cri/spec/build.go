package spec

import (
	"regexp"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// rootfs is the root file system's path relative to the bundle, where the shim
// mounts the snapshot.
const rootfs = "rootfs"

// Version is that of the OCI runtime specification which has all that a spec of
// ours uses, resources.unified and recursive read-only mounts as the latest of
// it. Not the newest: crun before 1.9 (that of Debian 12) takes none but 1.0.
const Version = "1.0.2-dev"

// id is what containerd accepts as an identifier, and what is safe as a path
// element.
var id = regexp.MustCompile(`^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$`)

// Build returns the OCI runtime spec of one container. An error says what of
// the config, the image or the host rules it out (IsRefused); no retry helps.
func Build(in Input) (*specs.Spec, error) {
	if err := checkInput(in); err != nil {
		return nil, err
	}
	sec := in.Container.GetLinux().GetSecurityContext()
	s := &specs.Spec{
		Version: Version,
		Root:    &specs.Root{Path: rootfs, Readonly: sec.GetReadonlyRootfs()},
		Process: &specs.Process{
			Terminal:        in.Container.GetTty(),
			User:            copyUser(in.User),
			NoNewPrivileges: sec.GetNoNewPrivs(),
			OOMScoreAdj:     oomScoreAdj(in),
			// No rlimits: containers inherit those of containerd, as with CRI.
		},
		Linux:       &specs.Linux{},
		Annotations: map[string]string{GroupAnnotation: in.Group},
	}
	steps := []func(Input, *specs.Spec) error{
		setProcess,
		setNamespaces,
		setCapabilities,
		setSeccomp, // reads the bounding set: after setCapabilities
		setMounts,
		setMaskedPaths,
		setResources,
		setDevices,
	}
	for _, step := range steps {
		if err := step(in, s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func checkInput(in Input) error {
	sec := in.Container.GetLinux().GetSecurityContext()
	switch {
	case in.Container == nil || in.Sandbox == nil:
		return refuse("build spec: no container or sandbox config")
	case !id.MatchString(in.ContainerID):
		return refuse("build spec: container id %q is not valid", in.ContainerID)
	case !id.MatchString(in.Group):
		return refuse("build spec: sandbox id %q is not valid", in.Group)
	case sec.GetPrivileged() && !in.Sandbox.GetLinux().GetSecurityContext().GetPrivileged():
		return refuse("privileged container in a sandbox that is not privileged")
	case len(in.Container.GetCDIDevices()) > 0:
		return refuse("CDI devices are not supported")
	case usesUserNamespace(sec) || usesUserNamespace(in.Sandbox.GetLinux().GetSecurityContext()):
		return refuse("user namespaces (hostUsers: false) are not supported")
	}
	return nil
}

// usesUserNamespace tells whether a container or a sandbox asks for a user
// namespace of its own.
func usesUserNamespace(sec interface {
	GetNamespaceOptions() *runtimeapi.NamespaceOption
}) bool {
	o := sec.GetNamespaceOptions().GetUsernsOptions()
	return o != nil && o.GetMode() != runtimeapi.NamespaceMode_NODE
}

func copyUser(u specs.User) specs.User {
	u.AdditionalGids = slices.Clone(u.AdditionalGids)
	u.Username = ""
	if u.Umask != nil {
		umask := *u.Umask
		u.Umask = &umask
	}
	return u
}

// oomScoreAdj is the score asked for, not lower than this process may give. It
// is always set: without one the container would inherit the shim's.
func oomScoreAdj(in Input) *int {
	adj := int(in.Container.GetLinux().GetResources().GetOomScoreAdj())
	adj = min(max(adj, in.Host.OOMScoreAdjMin, -1000), 1000)
	return &adj
}
