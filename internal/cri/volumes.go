package cri

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"nodeagent/internal/cri/image"
	"nodeagent/internal/cri/spec"
	"nodeagent/internal/mkdir"
)

// volumeDir holds the anonymous volumes of one container. They are on the disk,
// not in the run directory: an image's VOLUME may hold much.
func (n *Native) volumeDir(id string) string {
	return filepath.Join(n.cfg.StateDir, "volumes", id)
}

// fillVolumes makes the volumes and copies into each what the image has there.
func (n *Native) fillVolumes(ctx context.Context, volumes []spec.Volume, img image.Image) error {
	for _, v := range volumes {
		if err := mkdir.All(v.HostPath, 0o755); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	return n.images.Rootfs(ctx, img, func(dir string) error {
		for _, v := range volumes {
			if err := image.FillVolume(dir, v.ContainerPath, v.HostPath); err != nil {
				return err
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
