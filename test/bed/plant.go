package bed

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Plant puts things of somebody else into the bed, which the daemon must never
// touch: a container record in another containerd namespace, one in its own
// without its labels, a table of rules, a cgroup and a mount. They are part of
// every later Snapshot.
func (b *Bed) Plant(ctx context.Context) error {
	c, err := b.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	spec, err := typeurl.MarshalAny(&specs.Spec{Version: specs.Version})
	if err != nil {
		return err
	}
	for _, ns := range []string{"foreign", Namespace} {
		_, err := c.ContainerService().Create(namespaces.WithNamespace(ctx, ns), containers.Container{
			ID: "foreign", Spec: spec, Runtime: containers.RuntimeInfo{Name: "io.containerd.runc.v2"},
		})
		if err != nil {
			return fmt.Errorf("plant a foreign container in %s: %w", ns, err)
		}
	}
	if _, err := b.Run(ctx, "nft", "add table inet foreign; add chain inet foreign input { type filter hook input priority 10; }; add rule inet foreign input tcp dport 9 drop"); err != nil {
		return err
	}
	all, _, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		if err := os.Mkdir(filepath.Join(h, cgroupName(b.id), "foreign"), 0o755); err != nil {
			return err
		}
	}
	dir := filepath.Join(b.dir, "foreign")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return b.Do(func() error { return unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k") })
}
