package spec

import (
	"path"

	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// setNamespaces joins the sandbox's namespaces. What is asked for in the
// configs and what the caller gives must agree: a path that was forgotten would
// put a pod into the host's namespace.
func setNamespaces(in Input, s *specs.Spec) error {
	want := in.Sandbox.GetLinux().GetSecurityContext().GetNamespaceOptions()
	hostNet := want.GetNetwork() == runtimeapi.NamespaceMode_NODE
	hostIPC := want.GetIpc() == runtimeapi.NamespaceMode_NODE

	ns := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	for _, n := range []struct {
		kind specs.LinuxNamespaceType
		path string
		host bool
	}{
		{specs.NetworkNamespace, in.Namespaces.Net, hostNet},
		{specs.IPCNamespace, in.Namespaces.IPC, hostIPC},
		// A hostNetwork pod has the host's name.
		{specs.UTSNamespace, in.Namespaces.UTS, hostNet},
	} {
		switch {
		case n.path == "" && n.host:
		case n.path == "":
			return refuse("no path of the pod's %s namespace", n.kind)
		case n.host && n.kind != specs.UTSNamespace:
			return refuse("a path of a %s namespace, though the pod has the host's", n.kind)
		case !path.IsAbs(n.path):
			return refuse("path %q of the %s namespace is not absolute", n.path, n.kind)
		default:
			ns = append(ns, specs.LinuxNamespace{Type: n.kind, Path: n.path})
		}
	}
	pid, err := pidNamespace(in)
	if err != nil {
		return err
	}
	ns = append(ns, pid...)
	// The cgroup namespace hides the host's tree. On v1 and for privileged
	// containers kubelet nodes have none (KEP-2254).
	if in.Host.CgroupV2 && !in.Container.GetLinux().GetSecurityContext().GetPrivileged() {
		ns = append(ns, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	s.Linux.Namespaces = ns
	return nil
}

func pidNamespace(in Input) ([]specs.LinuxNamespace, error) {
	want := in.Container.GetLinux().GetSecurityContext().GetNamespaceOptions().GetPid()
	if in.Container.GetLinux().GetSecurityContext().GetNamespaceOptions() == nil {
		want = in.Sandbox.GetLinux().GetSecurityContext().GetNamespaceOptions().GetPid()
	}
	got := in.Namespaces.PID
	switch {
	case got == PIDOwn && want == runtimeapi.NamespaceMode_CONTAINER:
		return []specs.LinuxNamespace{{Type: specs.PIDNamespace}}, nil
	case got == PIDHost && want == runtimeapi.NamespaceMode_NODE:
		return nil, nil
	case got == PIDJoin && (want == runtimeapi.NamespaceMode_POD || want == runtimeapi.NamespaceMode_TARGET):
		if !path.IsAbs(in.Namespaces.PIDPath) {
			return nil, refuse("path %q of the PID namespace is not absolute", in.Namespaces.PIDPath)
		}
		return []specs.LinuxNamespace{{Type: specs.PIDNamespace, Path: in.Namespaces.PIDPath}}, nil
	}
	return nil, refuse("the PID namespace given (%d) is not the one asked for (%s)", got, want)
}
