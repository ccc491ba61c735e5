package cri

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"
)

// rro remembers which handlers can make a mount read-only together with all that
// is mounted below it. A handler that could not be asked is asked again.
type rro struct {
	mu    sync.Mutex
	known map[string]bool
}

// RecursiveReadOnly tells whether containers of the handler, "" the default one,
// can have recursively read-only mounts: the kernel needs mount_setattr (5.12)
// and the OCI runtime the mount option rro.
func (n *Native) RecursiveReadOnly(ctx context.Context, handler string) bool {
	n.rro.mu.Lock()
	can, known := n.rro.known[handler]
	n.rro.mu.Unlock()
	if known {
		return can
	}
	h, err := n.handler(handler)
	if err != nil {
		return false
	}
	ctx, cancel := n.call(ctx)
	defer cancel()
	info, err := n.client.RuntimeInfo(ctx, h.Runtime, &options.Options{BinaryName: h.Binary})
	if err != nil {
		n.log.Warn("ask a runtime for its features", "handler", handler, "err", err)
		return false
	}
	f, _ := info.Features.(*features.Features)
	can = f != nil && slices.Contains(f.MountOptions, "rro") && kernelSetsMounts()
	n.rro.mu.Lock()
	defer n.rro.mu.Unlock()
	if n.rro.known == nil {
		n.rro.known = map[string]bool{}
	}
	n.rro.known[handler] = can
	return can
}

// kernelSetsMounts tells whether the kernel has mount_setattr.
func kernelSetsMounts() bool {
	err := unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	return !errors.Is(err, unix.ENOSYS)
}
