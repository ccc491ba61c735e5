package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/failpoint"
	"nodeagent/internal/mkdir"
	"nodeagent/internal/openat2"
	"nodeagent/internal/rmdir"
)

// subPaths is the directory of the mounts of the pod's subPaths.
func (v *Volumes) subPaths(uid types.UID) string {
	return filepath.Join(v.pods(), string(uid), "volume-subpaths")
}

// subPath mounts what mount i of the container names below the volume at root,
// and returns where: <pod>/volume-subpaths/<volume>/<container>/<i>, as kubelet
// has it. What a container hands to the runtime is that mount, and not a path
// that another container of the pod can turn elsewhere meanwhile.
//
// Errors tell whoever may read the pod's status nothing of the node's files;
// the log has the rest.
func (v *Volumes) subPath(ctx context.Context, p *corev1.Pod, c *corev1.Container, i int, root string) (string, error) {
	m := &c.VolumeMounts[i]
	if err := checkSubPath(m.SubPath); err != nil {
		return "", err
	}
	target := filepath.Join(v.subPaths(p.UID), m.Name, c.Name, strconv.Itoa(i))
	// A look that hangs may end when nobody waits any more; then the file is
	// closed as garbage.
	opened := make(chan *os.File, 1)
	err := v.looks.do(ctx, target, func() error {
		fd, err := openSub(root, filepath.Clean(m.SubPath))
		if err == nil {
			opened <- os.NewFile(uintptr(fd), target)
		}
		return err
	})
	if err == nil {
		f := <-opened
		err = bindAt(ctx, int(f.Fd()), target)
		_ = f.Close()
	}
	if err != nil {
		v.log.Warn("prepare a subPath", "podUID", p.UID, "container", c.Name, "volume", m.Name, "subPath", m.SubPath, "err", err)
		return "", fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q", m.Name, c.Name)
	}
	return target, nil
}

// checkSubPath refuses what cannot be meant, in kubelet's words. Validation does
// too, but not for what a subPathExpr becomes.
func checkSubPath(sub string) error {
	if filepath.IsAbs(sub) {
		return fmt.Errorf("error SubPath `%s` must not be an absolute path", sub)
	}
	if slices.Contains(strings.Split(sub, "/"), "..") || strings.IndexByte(sub, 0) >= 0 {
		return fmt.Errorf("unable to provision SubPath `%s`: must not contain '..'", sub)
	}
	return nil
}

// openSub opens what lies at sub below root, and makes directories where there
// is nothing. Links are followed as long as they stay below root, whatever
// happens to them meanwhile: the kernel sees to that.
func openSub(root, sub string) (int, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(dir)
	fd, err := within(dir, sub)
	if !errors.Is(err, unix.ENOENT) {
		return fd, name("open", sub, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return -1, name("stat", root, err)
	}
	return makeSub(dir, sub, st.Mode&0o7777)
}

// makeSub makes the directories that are missing, with the mode of the volume,
// since a pod with an fsGroup expects to write there (kubelet, SafeMakeDir).
func makeSub(dir int, sub string, mode uint32) (int, error) {
	at, err := unix.Dup(dir)
	if err != nil {
		return -1, err
	}
	unix.CloseOnExec(at)
	parts := strings.Split(sub, "/")
	for i := range parts {
		part := strings.Join(parts[:i+1], "/")
		next, err := within(dir, part)
		if errors.Is(err, unix.ENOENT) {
			if err = mkdir.At(at, parts[i], mode); err == nil || errors.Is(err, fs.ErrExist) {
				next, err = within(dir, part)
			}
		}
		_ = unix.Close(at)
		if err != nil {
			return -1, name("make", part, err)
		}
		at = next
	}
	return at, nil
}

// within opens a path that may lead over links, but not out of dir.
func within(dir int, path string) (int, error) {
	return openat2.Open(dir, path, unix.O_PATH, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_MAGICLINKS)
}

// bindAt mounts what the descriptor refers to at target, in place of what an
// earlier run of the container had there.
func bindAt(ctx context.Context, fd int, target string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return name("stat", target, err)
	}
	if err := vacate(ctx, target); err != nil {
		return err
	}
	if err := makeTarget(target, st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return err
	}
	if err := failpoint.At(failpoint.VolumeSubPathBefore); err != nil {
		return err
	}
	mnt, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return name("take a mount of", target, err)
	}
	defer unix.Close(mnt)
	if err := attach(mnt, target); err != nil {
		return err
	}
	return failpoint.At(failpoint.VolumeSubPathAfter)
}

// vacate unmounts and removes what is at target, which only we put there. Who
// looks around in it shall not keep the container from its next run: here, and
// only here, a mount goes at once and ends when its last user is gone.
func vacate(ctx context.Context, target string) error {
	for {
		mounted, err := isMount(target)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !mounted {
			return rmdir.Tree(ctx, target)
		}
		if err := unmount(target, unix.MNT_DETACH); err != nil {
			return err
		}
	}
}

func makeTarget(target string, dir bool) error {
	if dir {
		return mkdir.All(target, 0o750)
	}
	if err := mkdir.All(filepath.Dir(target), 0o750); err != nil {
		return err
	}
	return makeFile(target, 0o640)
}

// name makes an error of a descriptor tell what it was about.
func name(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}
