package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// withMounts calls f with a directory that shows the mounts of a read-only
// snapshot. Where they are one directory it is that one; an overlay is mounted
// out of the host's sight; what other snapshotters give is mounted on a
// temporary directory.
func withMounts(ctx context.Context, mounts []mount.Mount, f func(dir string) error) error {
	if len(mounts) == 1 {
		switch m := mounts[0]; m.Type {
		case "bind":
			return f(m.Source)
		case "overlay":
			if lower := lowerDirs(m.Options); lower != nil {
				dir, err := openOverlay(lower)
				if err != nil {
					return err
				}
				defer dir.Close()
				return f(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
			}
		}
	}
	return mount.WithReadonlyTempMount(ctx, mounts, f)
}

// lowerDirs are the layers of an overlay that has lower ones only, else nil.
func lowerDirs(options []string) []string {
	var lower []string
	for _, o := range options {
		switch key, value, _ := strings.Cut(o, "="); key {
		case "lowerdir":
			lower = strings.Split(value, ":")
		case "upperdir":
			return nil
		}
	}
	return lower
}

// openOverlay mounts the layers read-only where nobody sees it and returns the
// root directory, which keeps it mounted until it is closed.
func openOverlay(lower []string) (dir *os.File, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			// Never unlocked: the thread, which is in a mount namespace of its
			// own now, ends with this goroutine, and the namespace with it.
			dir, err = mountOverlay(lower)
			return
		}
		// The main thread never ends, and would keep the namespace. While it is
		// held here, another goroutine runs on another thread.
		defer runtime.UnlockOSThread()
		dir, err = openOverlay(lower)
	}()
	<-done
	return dir, err
}

// mountOverlay changes the mount namespace of the thread that it runs on. It
// makes its system calls itself: containerd's mount package starts threads of
// its own, which would be in the host's namespace.
func mountOverlay(lower []string) (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return nil, fmt.Errorf("make mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	// Options fit one page: name the layers from their common directory.
	base := filepath.Dir(filepath.Dir(lower[0])) // …/snapshots/<n>/fs
	names := make([]string, len(lower))
	for i, l := range lower {
		rel, err := filepath.Rel(base, l)
		if err != nil {
			return nil, fmt.Errorf("mount overlay: %w", err)
		}
		names[i] = rel
	}
	if err := unix.Chdir(base); err != nil {
		return nil, &os.PathError{Op: "chdir", Path: base, Err: err}
	}
	// Only this thread sees the mount, so that it may cover any directory; no
	// layer lies below this one.
	const at = "/proc"
	err := unix.Mount("overlay", at, "overlay", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC,
		"lowerdir="+strings.Join(names, ":"))
	if err != nil {
		return nil, fmt.Errorf("mount overlay of %d layers: %w", len(lower), err)
	}
	fd, err := unix.Open(at, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: at, Err: err}
	}
	return os.NewFile(uintptr(fd), "rootfs"), nil
}
