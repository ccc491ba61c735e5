package cri

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	continuity "github.com/containerd/continuity/fs"

	"nodeagent/internal/cri/image"
	"nodeagent/internal/cri/spec"
)

// volumeDir holds the anonymous volumes of one container. They are on the disk,
// not in the run directory: an image's VOLUME may hold much.
func (n *Native) volumeDir(id string) string {
	return filepath.Join(n.cfg.StateDir, "volumes", id)
}

// fillVolumes makes the volumes and copies into each what the image has there.
// The source is resolved inside the image's root file system.
func (n *Native) fillVolumes(ctx context.Context, volumes []spec.Volume, img image.Image) error {
	for _, v := range volumes {
		if err := os.MkdirAll(v.HostPath, 0o700); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	return n.images.Rootfs(ctx, img, func(dir string) error {
		for _, v := range volumes {
			src, err := continuity.RootPath(dir, v.ContainerPath)
			if err != nil {
				return fmt.Errorf("resolve volume path: %w", err)
			}
			info, err := os.Lstat(src)
			if errors.Is(err, fs.ErrNotExist) {
				// As an empty directory of the image would be.
				if err := os.Chmod(v.HostPath, 0o755); err != nil {
					return fmt.Errorf("make directory: %w", err)
				}
				continue
			}
			if err != nil || !info.IsDir() {
				return fmt.Errorf("volume %q of the image is no directory", v.ContainerPath)
			}
			if err := continuity.CopyDir(v.HostPath, src); err != nil {
				return fmt.Errorf("copy volume: %w", err)
			}
		}
		return nil
	})
}

func (n *Native) removeVolumes(id string) error {
	if err := os.RemoveAll(n.volumeDir(id)); err != nil {
		return fmt.Errorf("remove volumes of image: %w", err)
	}
	return nil
}
