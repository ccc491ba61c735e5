package cri_test

import (
	"context"
	"path/filepath"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"

	"nodeagent/test/image"
)

// floor is the least that anybody could do for a container: record, snapshot,
// task, with containerd's own shim and no I/O.
type floor struct {
	c      *containerd.Client
	img    containerd.Image
	parent string

	container containerd.Container
	task      containerd.Task
	exited    <-chan containerd.ExitStatus
}

func newFloor(t testing.TB, n *node) *floor {
	t.Helper()
	f := &floor{c: n.bed.Client(t), parent: filepath.Join(n.bed.CgroupRoot(), "floor")}
	var err error
	f.img, err = f.c.GetImage(t.Context(), image.Example)
	check(t, err)
	return f
}

func (f *floor) up(ctx context.Context, id string) (err error) {
	f.container, err = f.c.NewContainer(ctx, id, containerd.WithSnapshotter("overlayfs"), containerd.WithNewSnapshot(id, f.img),
		containerd.WithRuntime("io.containerd.runc.v2", nil),
		containerd.WithNewSpec(oci.WithProcessArgs("/podtool", "sleep", "forever"), oci.WithCgroup(filepath.Join(f.parent, id))))
	if err != nil {
		return err
	}
	if f.task, err = f.container.NewTask(ctx, cio.NullIO); err != nil {
		return err
	}
	if f.exited, err = f.task.Wait(ctx); err != nil {
		return err
	}
	return f.task.Start(ctx)
}

func (f *floor) down(ctx context.Context) error {
	if err := f.task.Kill(ctx, unix.SIGTERM); err != nil {
		return err
	}
	<-f.exited
	if _, err := f.task.Delete(ctx); err != nil {
		return err
	}
	return f.container.Delete(ctx, containerd.WithSnapshotCleanup)
}
