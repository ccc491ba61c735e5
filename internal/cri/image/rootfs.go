package image

import (
	"context"
	"errors"
	"fmt"
	"os"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"golang.org/x/sys/unix"

	"nodeagent/internal/openat2"
)

func (s *Store) platformImage(record images.Image) containerd.Image {
	return containerd.NewImageWithPlatform(s.cfg.Client, record, platforms.Only(*s.cfg.Platform))
}

// Rootfs calls f with a directory that holds the image's root file system,
// read-only, and takes it away again. The directory is good until f returns, in
// any goroutine of this process. With overlayfs the host never sees the mount,
// and a crash leaves none.
func (s *Store) Rootfs(ctx context.Context, img Image, f func(dir string) error) (err error) {
	ctx, done, err := s.lease(s.namespaced(ctx))
	if err != nil {
		return fmt.Errorf("open image %q: %w", img.Name, err)
	}
	defer done(nil)
	lease, _ := leases.FromContext(ctx)
	key := "view-" + lease
	sn := s.cfg.Client.SnapshotService(s.cfg.Snapshotter)
	cctx, cancel := s.call(ctx)
	mounts, err := sn.View(cctx, key, img.ChainID.String())
	cancel()
	if errdefs.IsNotFound(err) {
		return &failure{kind: kindNotFound, msg: fmt.Sprintf("open image %q: not unpacked", img.Name), err: err}
	}
	if err != nil {
		return fmt.Errorf("open image %q: %w", img.Name, err)
	}
	defer func() {
		ctx, cancel := s.call(context.WithoutCancel(ctx))
		defer cancel()
		if rerr := sn.Remove(ctx, key); rerr != nil && !errdefs.IsNotFound(rerr) && err == nil {
			err = fmt.Errorf("close image %q: %w", img.Name, rerr)
		}
	}()
	return withMounts(ctx, mounts, f)
}

// FillVolume copies what the root file system dir has at path, a VOLUME of the
// image, into the directory to: content, owners, modes, attributes. Links on
// the way are resolved inside dir only (CVE-2022-23648); where there is no
// directory, it does nothing.
func FillVolume(dir, path, to string) error {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("fill volume: %w", &os.PathError{Op: "open", Path: dir, Err: err})
	}
	defer unix.Close(root)
	fd, err := openat2.Open(root, path, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return nil
	case err != nil:
		return fmt.Errorf("fill volume %q: %w", path, err)
	}
	defer unix.Close(fd)
	// The tree may hold devices and FIFOs: they are made anew, never opened.
	if err := fs.CopyDir(to, fmt.Sprintf("/proc/self/fd/%d", fd)); err != nil {
		return fmt.Errorf("fill volume %q: %w", path, err)
	}
	return nil
}
