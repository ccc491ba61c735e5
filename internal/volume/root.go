package volume

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"nodeagent/internal/mkdir"
)

// rootDirs are what kubelet has there and other software mounts, or waits for.
var rootDirs = []string{"pods", "plugins", "plugins_registry", "pod-resources"}

// Root makes the root directory (0750, as kubelet does) and sees to it that what
// is mounted in it spreads to and from containers that ask for that
// (mountPropagation): it must be on a shared mount. Where the host's are not,
// which nobody with systemd has, the directory becomes a mount of its own. Call
// it before any pod is touched.
func (v *Volumes) Root() error {
	for _, dir := range append([]string{""}, rootDirs...) {
		if err := mkdir.All(filepath.Join(v.cfg.RootDir, dir), 0o750); err != nil {
			return fmt.Errorf("make the root directory: %w", err)
		}
	}
	root, err := filepath.EvalSymlinks(v.cfg.RootDir)
	if err != nil {
		return fmt.Errorf("make the root directory: %w", err)
	}
	on, below, err := mountOf(root)
	if err != nil {
		return fmt.Errorf("find the mount of the root directory: %w", err)
	}
	switch {
	case strings.Contains(on.Optional, "shared:"):
		return nil
	case on.Mountpoint == root:
		err = unix.Mount("", root, "", unix.MS_SHARED|unix.MS_REC, "")
	case below:
		// Mounts of pods that run would be hidden, never to be unmounted.
		v.log.Warn("mounts in the root directory do not spread to containers: it is on no shared mount, and pods have mounts in it; reboot, or make it one", "dir", root)
		return nil
	default:
		err = errors.Join(unix.Mount(root, root, "", unix.MS_BIND, ""), unix.Mount("", root, "", unix.MS_SHARED|unix.MS_REC, ""))
	}
	if err != nil {
		return fmt.Errorf("make the root directory %s a shared mount: %w", root, err)
	}
	return nil
}

// mountOf is the mount that a directory is on, and whether there are others
// below the directory.
func mountOf(dir string) (on *mountinfo.Info, others bool, err error) {
	infos, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, false, err
	}
	on = &mountinfo.Info{}
	for _, m := range infos {
		switch {
		case m.Mountpoint == "/" || below(dir, m.Mountpoint):
			if len(m.Mountpoint) >= len(on.Mountpoint) {
				on = m
			}
		case below(m.Mountpoint, dir):
			others = true
		}
	}
	return on, others, nil
}
