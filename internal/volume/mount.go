package volume

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nodeagent/internal/failpoint"
	"nodeagent/internal/mkdir"
)

// option is one of a file system; without a value it is a flag. maybe: a kernel
// that does not know it mounts without.
type option struct {
	key, value string
	maybe      bool
}

// mountNew mounts a new file system at dir, unless something is mounted there
// already. It is configured before it is attached, so that it is seen complete
// or not at all.
func mountNew(dir, fstype string, options []option, mode uint32) error {
	if err := mkdir.All(dir, 0o750); err != nil {
		return err
	}
	if mounted, err := isMount(dir); mounted || err != nil {
		return err
	}
	if err := failpoint.At(failpoint.VolumeMountBefore); err != nil {
		return err
	}
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open a %s: %w", fstype, err)
	}
	defer unix.Close(fs)
	for _, o := range append([]option{{key: "source", value: fstype}}, options...) {
		set := func() error { return unix.FsconfigSetString(fs, o.key, o.value) }
		if o.value == "" {
			set = func() error { return unix.FsconfigSetFlag(fs, o.key) }
		}
		if err := set(); err != nil && !(o.maybe && errors.Is(err, unix.EINVAL)) {
			return fmt.Errorf("set %s=%s of a %s: %w", o.key, o.value, fstype, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("make a %s: %w", fstype, err)
	}
	// Nobody needs devices or set-uid programs in what is made empty.
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RELATIME|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return fmt.Errorf("mount a %s: %w", fstype, err)
	}
	defer unix.Close(mnt)
	// A huge page's file system takes a mode, but no set-group-id in it.
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", mnt), mode); err != nil {
		return &os.PathError{Op: "chmod", Path: dir, Err: err}
	}
	if err := attach(mnt, dir); err != nil {
		return err
	}
	return failpoint.At(failpoint.VolumeMountAfter)
}

// attach puts a mount that only a descriptor refers to at path.
func attach(mnt int, path string) error {
	if err := unix.MoveMount(mnt, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "mount", Path: path, Err: err}
	}
	return nil
}

// isMount tells whether something is mounted at path, which is no link.
func isMount(path string) (bool, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	up, err := unix.Openat(fd, "..", unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) {
		return isFileMount(fd, path)
	}
	if err != nil {
		return false, &os.PathError{Op: "open the directory above", Path: path, Err: err}
	}
	defer unix.Close(up)
	here, err := mountID(fd)
	if err != nil {
		return false, err
	}
	above, err := mountID(up)
	return here != above, err
}

// isFileMount compares a file's mount with that of its directory.
func isFileMount(fd int, path string) (bool, error) {
	up, err := unix.Open(path[:strings.LastIndexByte(path, '/')+1], unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, &os.PathError{Op: "open the directory of", Path: path, Err: err}
	}
	defer unix.Close(up)
	here, err := mountID(fd)
	if err != nil {
		return false, err
	}
	above, err := mountID(up)
	return here != above, err
}

// mountID is the mount on which an open file lies, as mountinfo numbers it
// (proc(5), fdinfo).
func mountID(fd int) (int, error) {
	f, err := os.Open(fmt.Sprintf("/proc/thread-self/fdinfo/%d", fd))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "mnt_id:"); ok {
			return strconv.Atoi(strings.TrimSpace(text))
		}
	}
	return 0, errors.New("find the mount of an open file: fdinfo does not tell")
}
