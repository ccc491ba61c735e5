package spec

import (
	"errors"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// LoadSeccomp reads the Localhost profile ref (kubelet's localhostProfile)
// below root (kubelet's <root-dir>/seccomp).
func LoadSeccomp(root, ref string) (*specs.LinuxSeccomp, error) {
	return nil, errors.New("load seccomp profile: not written yet")
}

// HostDevices returns all devices of the host, for a privileged container.
func HostDevices() ([]specs.LinuxDevice, error) { return nil, errors.New("not written yet") }

// Devices resolves the devices of a CRI config on the host.
func Devices(devices []*runtimeapi.Device) ([]Device, error) {
	return nil, errors.New("not written yet")
}

// CheckPropagation refuses a mount whose propagation its host path cannot give.
func CheckPropagation(mounts []*runtimeapi.Mount) error { return errors.New("not written yet") }

// ImageVolumes returns the cleaned container paths of the image's VOLUMEs that
// the config does not mount itself: the caller makes a directory for each and
// passes it as Input.Volumes.
func ImageVolumes(image ocispec.ImageConfig, mounts []*runtimeapi.Mount) ([]string, error) {
	return nil, errors.New("not written yet")
}

// StopSignal returns the signal that asks the container to stop: the config's,
// else the image's STOPSIGNAL, else SIGTERM. ignored is the image's value where
// it is no signal; then SIGTERM is returned, because an image must not be able
// to make itself unstoppable.
func StopSignal(config *runtimeapi.ContainerConfig, image ocispec.ImageConfig) (sig syscall.Signal, ignored string) {
	return syscall.SIGTERM, ""
}
