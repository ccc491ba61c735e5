package spec

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxVolumes bounds the anonymous volumes of an image, each a directory and a
// mount.
const maxVolumes = 128

// ImageVolumes returns the paths of the image's VOLUMEs that no mount of the
// config covers: the caller makes an empty directory for each, fills it with
// what the root file system has there, and passes it as Input.Volumes. A path
// that climbs, or that is the root, is refused (CVE-2022-23648).
func ImageVolumes(image ocispec.ImageConfig, mounts []*runtimeapi.Mount) ([]string, error) {
	covered := map[string]bool{}
	for _, m := range mounts {
		if dst, err := destination(m.GetContainerPath()); err == nil {
			covered[dst] = true
		}
	}
	out := map[string]bool{}
	for v := range image.Volumes {
		dst, err := destination(v)
		if err != nil {
			return nil, refuse("the image's VOLUME: %v", err)
		}
		for _, reserved := range []string{"/proc", "/sys", "/dev"} {
			if dst == reserved || strings.HasPrefix(dst, reserved+"/") {
				return nil, refuse("the image's VOLUME %q lies in %s", v, reserved)
			}
		}
		if !covered[dst] {
			out[dst] = true
		}
	}
	if len(out) > maxVolumes {
		return nil, refuse("the image has %d VOLUMEs, over %d", len(out), maxVolumes)
	}
	paths := make([]string, 0, len(out))
	for p := range out {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	return paths, nil
}

// CheckPropagation refuses a mount whose propagation its host path cannot give:
// Bidirectional needs a shared mount under it, HostToContainer a shared or
// slave one. It reads /proc/self/mountinfo, only if a mount asks for either.
func CheckPropagation(mounts []*runtimeapi.Mount) error {
	var infos []*mountinfo.Info
	for _, m := range mounts {
		both := m.GetPropagation() == runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
		if m.GetPropagation() == runtimeapi.MountPropagation_PROPAGATION_PRIVATE {
			continue
		}
		if infos == nil {
			var err error
			if infos, err = mountinfo.GetMounts(nil); err != nil {
				return fmt.Errorf("read mounts: %w", err)
			}
		}
		src, err := filepath.EvalSymlinks(m.GetHostPath())
		if err != nil {
			return fmt.Errorf("resolve host path of mount %q: %w", m.GetContainerPath(), err)
		}
		info := mountOf(infos, src)
		if strings.Contains(info.Optional, "shared:") || !both && strings.Contains(info.Optional, "master:") {
			continue
		}
		return refuse("mount %q: %s is on %s, which is mounted without the propagation asked for", m.GetContainerPath(), src, info.Mountpoint)
	}
	return nil
}

// mountOf returns the mount on which path lies: the last of the longest.
func mountOf(infos []*mountinfo.Info, path string) *mountinfo.Info {
	best := &mountinfo.Info{}
	for _, info := range infos {
		mp := strings.TrimSuffix(info.Mountpoint, "/")
		if (path == mp || strings.HasPrefix(path, mp+"/")) && len(info.Mountpoint) >= len(best.Mountpoint) {
			best = info
		}
	}
	return best
}
