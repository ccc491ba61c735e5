package image

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
)

// The label by which containerd's CRI plugin, kubelet and k3s know an image that
// is never removed to make room.
const (
	pinnedLabel = "io.cri-containerd.pinned"
	pinned      = "pinned"
)

// label sets labels of the images of these names, and leaves their others.
func (s *Store) label(ctx context.Context, names []string, labels map[string]string) error {
	var paths []string
	for key := range labels {
		paths = append(paths, "labels."+key)
	}
	for _, name := range names {
		ctx, cancel := s.call(ctx)
		_, err := s.cfg.Client.ImageService().Update(ctx, images.Image{Name: name, Labels: labels}, paths...)
		cancel()
		if err != nil {
			return fmt.Errorf("label image %q: %w", name, err)
		}
	}
	return nil
}
