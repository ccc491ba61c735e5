package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/failpoint"
	"nodeagent/internal/mkdir"
)

// setupEmptyDir makes an empty directory, on the disk or in memory, that every
// user of the pod may write to, as kubelet has it. The directories above are
// closed to everybody else on the node.
func (v *Volumes) setupEmptyDir(p *corev1.Pod, vol *corev1.Volume) error {
	dir := v.dir(p.UID, pluginEmptyDir, vol.Name)
	o := owner{mode: 0o777, gid: fsGroup(p)}
	switch medium := vol.EmptyDir.Medium; {
	case medium == corev1.StorageMediumDefault:
		return makeDir(dir, o)
	case medium == corev1.StorageMediumMemory:
		// As a tmpfs comes, which is how kubelet leaves it: users of the pod do not
		// remove each other's files there.
		o.mode |= unix.S_ISVTX
		return mountTmpfs(dir, v.memorySize(p, vol.EmptyDir), o)
	case strings.HasPrefix(string(medium), string(corev1.StorageMediumHugePages)):
		size, err := pageSize(p, medium)
		if err != nil {
			return err
		}
		return mountHuge(dir, size, vol.EmptyDir.SizeLimit, o)
	default:
		return fmt.Errorf("unknown storage medium %q", medium)
	}
}

// owner says who may use a volume. The zero gid is root's group.
type owner struct {
	mode     uint32
	gid      int64 // -1: nobody's
	readOnly bool
}

// bits are the permissions with what an fsGroup adds to those of a directory:
// the group may use it, and what is made in it belongs to the group (kubelet,
// SetVolumeOwnership).
func (o owner) bits() uint32 {
	switch {
	case o.gid < 0:
		return o.mode
	case o.readOnly:
		return o.mode | 0o050 | unix.S_ISGID
	}
	return o.mode | 0o070 | unix.S_ISGID
}

// fsGroup is the group that owns the pod's volumes, -1 for none.
func fsGroup(p *corev1.Pod) int64 {
	if sc := p.Spec.SecurityContext; sc != nil && sc.FSGroup != nil {
		return *sc.FSGroup
	}
	return -1
}

// memorySize is the size of a volume in memory: what the pod may use, or all
// pods together where it has no limit, and no more than the volume's own limit
// (kubelet, calculateEmptyDirMemorySize).
func (v *Volumes) memorySize(p *corev1.Pod, e *corev1.EmptyDirVolumeSource) int64 {
	size := v.cfg.Memory
	if m := v.cfg.Limits.Pod(p).Memory; m != nil && *m > 0 && *m <= size {
		size = *m
	}
	if e != nil && e.SizeLimit != nil {
		if l := e.SizeLimit.Value(); l > 0 && l <= size {
			size = l
		}
	}
	return size
}

// makeDir makes a directory that is complete from the moment it is there: a
// daemon killed in the middle leaves a directory of another name, which the next
// one replaces. One that is there keeps its content, mode and owner.
func makeDir(dir string, o owner) error {
	if st, err := os.Lstat(dir); err == nil && st.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := mkdir.All(parent, 0o750); err != nil {
		return err
	}
	if err := failpoint.At(failpoint.VolumeDirBefore); err != nil {
		return err
	}
	made := filepath.Join(parent, ".new-"+filepath.Base(dir))
	if err := mkdir.One(made, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if o.gid >= 0 {
		if err := unix.Lchown(made, 0, int(o.gid)); err != nil {
			return &os.PathError{Op: "chown", Path: made, Err: err}
		}
	}
	if err := unix.Chmod(made, o.bits()); err != nil {
		return &os.PathError{Op: "chmod", Path: made, Err: err}
	}
	if err := unix.Renameat2(unix.AT_FDCWD, made, unix.AT_FDCWD, dir, unix.RENAME_NOREPLACE); err != nil {
		return &os.LinkError{Op: "rename", Old: made, New: dir, Err: err}
	}
	return failpoint.At(failpoint.VolumeDirAfter)
}

// mountTmpfs mounts a file system in memory at dir, unless one is there. It has
// its size, mode and group before anybody can see it.
func mountTmpfs(dir string, size int64, o owner) error {
	options := []option{{key: "size", value: strconv.FormatInt(size, 10)}}
	if o.gid >= 0 {
		options = append(options, option{key: "gid", value: strconv.FormatInt(o.gid, 10)})
	}
	// What is in memory shall not be found on a disk. Kernels before 6.4 cannot
	// promise it.
	return mountNew(dir, "tmpfs", append(options, option{key: "noswap", maybe: true}), o.bits())
}
