package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/failpoint"
	"nodeagent/internal/openat2"
	"nodeagent/internal/rmdir"
)

// plugins are the kinds of volume that are made here, and so are removed here.
var plugins = []plugin{pluginEmptyDir, pluginConfigMap, pluginSecret, pluginDownward, pluginProjected}

// Remove unmounts the pod's volumes and deletes what they hold. Nothing is
// deleted before everything is unmounted; what is mounted by somebody else stays
// and is named, as is who keeps a mount from going.
func (v *Volumes) Remove(ctx context.Context, uid types.UID) error {
	if err := plain(string(uid)); err != nil {
		return err
	}
	unlock, err := v.locks.lock(ctx, uid)
	if err != nil {
		return err
	}
	defer unlock()
	if any, err := v.any(uid); err != nil || !any {
		return err
	}
	defer v.meter.hold(uid)()
	if err := v.unmountAll(ctx, uid); err != nil {
		return fmt.Errorf("unmount the pod's volumes: %w", err)
	}
	if err := failpoint.At(failpoint.VolumeRemoveBefore); err != nil {
		return err
	}
	if err := v.removeAll(ctx, uid); err != nil {
		return fmt.Errorf("remove the pod's volumes: %w", err)
	}
	return failpoint.At(failpoint.VolumeRemoveAfter)
}

// any tells whether the pod has volumes. Most have none, and reading all the
// node's mounts for each of those would cost more than everything else. Only
// names are read: what is mounted there may be on a dead server.
func (v *Volumes) any(uid types.UID) (bool, error) {
	entries, err := os.ReadDir(filepath.Join(v.pods(), string(uid)))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the pod's volumes: %w", err)
	}
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		return e.Name() == "volumes" || e.Name() == "volume-subpaths"
	}), nil
}

// Stray removes the volumes of pods for which keep is false.
func (v *Volumes) Stray(ctx context.Context, keep func(types.UID) bool) error {
	pods, err := os.ReadDir(v.pods())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for volumes of pods that are gone: %w", err)
	}
	var errs []error
	for _, e := range pods {
		if uid := types.UID(e.Name()); plain(e.Name()) == nil && !keep(uid) {
			if err := v.Remove(ctx, uid); err != nil {
				errs = append(errs, fmt.Errorf("pod %s is gone, but its volumes are not: %w", uid, err))
			}
		}
	}
	return errors.Join(errs...)
}

// unmountAll unmounts what is mounted in the pod's volumes, the last mounts
// first.
func (v *Volumes) unmountAll(ctx context.Context, uid types.UID) error {
	mounts, err := v.mountsOf(uid)
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range mounts {
		if err := errors.Join(ctx.Err(), v.ours(uid, m)); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := failpoint.At(failpoint.VolumeUnmountBefore); err != nil {
			return err
		}
		if err := unmount(m, 0); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := failpoint.At(failpoint.VolumeUnmountAfter); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

// mountsOf lists the mount points in the pod's directory, inner ones first.
func (v *Volumes) mountsOf(uid types.UID) ([]string, error) {
	// The kernel names mount points without links; the root directory may be one.
	root, err := filepath.EvalSymlinks(filepath.Join(v.pods(), string(uid)))
	if err != nil {
		return nil, err
	}
	return mountsBelow(root)
}

// MountsOf lists the mount points in the directory of a pod below rootDir, inner ones
// first; none where there is no such directory. It only reads the kernel's table.
func MountsOf(rootDir string, uid types.UID) ([]string, error) {
	if err := plain(string(uid)); err != nil {
		return nil, err
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(rootDir, "pods", string(uid)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find the pod's directory: %w", err)
	}
	return mountsBelow(dir)
}

// mountsBelow lists the mount points at and below a directory, inner ones first.
func mountsBelow(dir string) ([]string, error) {
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	var all []string
	for _, m := range slices.Backward(infos) {
		all = append(all, m.Mountpoint)
	}
	slices.SortStableFunc(all, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
	return all, nil
}

// ours tells whether the mount is one that this package makes, or one that a
// container made inside of such; any other is left to whoever made it.
func (v *Volumes) ours(uid types.UID, mount string) error {
	_, below, _ := strings.Cut(mount, "/"+string(uid)+"/")
	parts := strings.Split(below, "/")
	if len(parts) >= 3 && parts[0] == "volumes" && (slices.Contains(plugins, plugin(parts[1])) || plugin(parts[1]) == pluginLocal) ||
		len(parts) >= 4 && parts[0] == "volume-subpaths" {
		return nil
	}
	return fmt.Errorf("%s is mounted and is none of this node's volumes: unmount it by what mounted it", mount)
}

// unmount ends one mount. It goes by the directory above, opened without
// following any link: what a pod puts in the way cannot turn it elsewhere.
func unmount(point string, flags int) error {
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/", Err: err}
	}
	defer unix.Close(root)
	dir, name := filepath.Split(point)
	fd, err := openat2.Open(root, strings.Trim(dir, "/"), unix.O_PATH|unix.O_DIRECTORY,
		unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	err = unix.Unmount(fmt.Sprintf("/proc/self/fd/%d/%s", fd, name), unix.UMOUNT_NOFOLLOW|flags)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("unmount %s: it is in use%s", point, holders(point))
	}
	if err != nil {
		return &os.PathError{Op: "unmount", Path: point, Err: err}
	}
	return nil
}

// removeAll deletes the volumes; of kinds that are not made here only what is
// empty. It goes by descriptors: should a directory be a link, the link goes.
func (v *Volumes) removeAll(ctx context.Context, uid types.UID) error {
	pods, err := unix.Open(v.pods(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: v.pods(), Err: err}
	}
	defer unix.Close(pods)
	pod, err := beneath(pods, string(uid), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return &os.PathError{Op: "open", Path: filepath.Join(v.pods(), string(uid)), Err: err}
	}
	defer unix.Close(pod)
	if err := rmdir.At(ctx, pod, "volume-subpaths", v.subPaths(uid)); err != nil {
		return err
	}
	if err := v.removeKinds(ctx, pod, uid); err != nil {
		return err
	}
	return rmdir.At(ctx, pod, "volumes", v.volumes(uid))
}

// removeKinds deletes, below the open directory of a pod, the volumes of the
// kinds that are made here, and directories of other kinds that are empty.
func (v *Volumes) removeKinds(ctx context.Context, pod int, uid types.UID) error {
	fd, err := beneath(pod, "volumes", unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return nil // nothing, or no directory
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: v.volumes(uid), Err: err}
	}
	dir := os.NewFile(uintptr(fd), v.volumes(uid))
	defer dir.Close()
	kinds, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	var errs []error
	for _, k := range kinds {
		shown := filepath.Join(v.volumes(uid), k)
		if slices.Contains(plugins, plugin(k)) {
			errs = append(errs, rmdir.At(ctx, fd, k, shown))
			continue
		}
		if plugin(k) == pluginLocal {
			if err := removeEmpty(fd, k); err != nil {
				errs = append(errs, fmt.Errorf("%s holds something although nothing is mounted there: remove it by hand: %w", shown, err))
				continue
			}
		}
		if err := unix.Unlinkat(fd, k, unix.AT_REMOVEDIR); err != nil {
			errs = append(errs, fmt.Errorf("%s is none of this node's volumes: remove it by what made it: %w", shown, err))
		}
	}
	return errors.Join(errs...)
}

// removeEmpty deletes the directories in the one of that name, which must be
// empty: what was mounted there is somebody's data, and is never deleted.
func removeEmpty(parent int, kind string) error {
	fd, err := beneath(parent, kind, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), kind)
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range names {
		if err := unix.Unlinkat(fd, n, unix.AT_REMOVEDIR); err != nil {
			errs = append(errs, name("remove", n, err))
		}
	}
	return errors.Join(errs...)
}
