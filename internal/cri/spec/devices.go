package spec

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// setDevices denies all devices but those given; runc adds null, zero, full,
// random, urandom, tty and the ptys. A privileged container gets them all.
func setDevices(in Input, s *specs.Spec) error {
	if in.Container.GetLinux().GetSecurityContext().GetPrivileged() {
		for _, d := range in.HostDevices {
			s.Linux.Devices = append(s.Linux.Devices, copyDevice(d))
		}
		s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		return nil
	}
	s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, d := range in.Devices {
		if d.Permissions == "" || strings.Trim(d.Permissions, "rwm") != "" {
			return refuse("device %q: permissions %q are not of r, w, m", d.Node.Path, d.Permissions)
		}
		if !strings.HasPrefix(path.Clean(d.Node.Path), "/dev/") {
			return refuse("device %q does not lie in /dev of the container", d.Node.Path)
		}
		node := copyDevice(d.Node)
		s.Linux.Devices = append(s.Linux.Devices, node)
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{
			Allow: true, Type: node.Type, Major: &node.Major, Minor: &node.Minor, Access: d.Permissions,
		})
	}
	return nil
}

func copyDevice(d specs.LinuxDevice) specs.LinuxDevice {
	d.FileMode = copyOf(d.FileMode)
	d.UID = copyOf(d.UID)
	d.GID = copyOf(d.GID)
	return d
}

func copyOf[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

// HostDevices returns all devices of the host, for a privileged container.
func HostDevices() ([]specs.LinuxDevice, error) {
	d, err := oci.HostDevices()
	if err != nil {
		return nil, fmt.Errorf("list the host's devices: %w", err)
	}
	return d, nil
}

// Devices resolves the devices of a CRI config on the host. A path that is no
// device is an error.
func Devices(devices []*runtimeapi.Device) ([]Device, error) {
	var out []Device
	for _, d := range devices {
		p, err := filepath.EvalSymlinks(d.GetHostPath())
		if err != nil {
			return nil, fmt.Errorf("resolve device: %w", err)
		}
		node, err := oci.DeviceFromPath(p)
		if err != nil {
			return nil, fmt.Errorf("look at device %s: %w", p, err)
		}
		if d.GetContainerPath() != "" {
			node.Path = d.GetContainerPath()
		}
		out = append(out, Device{Node: *node, Permissions: d.GetPermissions()})
	}
	return out, nil
}
