package cri

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/plugins"
)

// LayerUsage counts what a container has written into its root file system.
// containerd walks through every file of it; it stops with ctx.
func (n *Native) LayerUsage(ctx context.Context, id string) (bytes, inodes uint64, err error) {
	c, err := n.state.container(id)
	if err != nil {
		return 0, 0, err
	}
	if c.snapshotter == "" {
		return 0, 0, notFound("root file system of container", id)
	}
	ctx, cancel := n.call(ctx)
	defer cancel()
	used, err := n.client.SnapshotService(c.snapshotter).Usage(ctx, id)
	if err != nil {
		return 0, 0, fmt.Errorf("count what a container has written: %w", err)
	}
	return uint64(max(used.Size, 0)), uint64(max(used.Inodes, 0)), nil
}

// SnapshotRoot is the directory in which the default snapshotter keeps layers, where
// containerd tells it.
func (n *Native) SnapshotRoot(ctx context.Context) (string, error) {
	ctx, cancel := n.call(ctx)
	defer cancel()
	all, err := n.client.IntrospectionService().Plugins(ctx, fmt.Sprintf("type==%s,id==%s", plugins.SnapshotPlugin, n.cfg.Snapshotter))
	if err != nil {
		return "", fmt.Errorf("ask containerd for its snapshotter: %w", err)
	}
	for _, p := range all.GetPlugins() {
		if root := p.GetExports()["root"]; root != "" {
			return root, nil
		}
	}
	return "", notFound("directory of snapshotter", n.cfg.Snapshotter)
}
