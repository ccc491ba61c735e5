package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// maxEnvFile bounds a file of variables.
const maxEnvFile = 1 << 20

// EnvFile reads a file that a container has left in a volume of the pod, for the
// variables of another one. It is the container's in every respect: what leads
// out of the volume is not followed, whatever happens to links meanwhile, what is
// no regular file is not opened for reading, and it is at most 1 MiB. Errors name
// the path as the pod wrote it.
func (v *Volumes) EnvFile(ctx context.Context, p *corev1.Pod, volume, path string) ([]byte, error) {
	vol := volumeNamed(p, volume)
	if vol == nil || vol.EmptyDir == nil {
		return nil, fmt.Errorf("cannot find the volume %q referenced by FileKeyRef", volume)
	}
	root, err := v.path(ctx, p, vol)
	if err != nil {
		return nil, err
	}
	if err := checkSubPath(path); err != nil {
		return nil, err
	}
	dir, err := unix.Open(root, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, name("open", volume, err)
	}
	defer unix.Close(dir)
	at, err := within(dir, path)
	if err != nil {
		return nil, name("open", path, err)
	}
	defer unix.Close(at)
	return readRegular(at, path)
}

// readRegular reads what the descriptor refers to. It is known to be a regular
// file before it is opened: opening a pipe or a device acts.
func readRegular(at int, path string) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return nil, name("stat", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, name("read", path, errors.New("not a regular file"))
	}
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", at), os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, name("open", path, errors.Unwrap(err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxEnvFile+1))
	if err == nil && len(text) > maxEnvFile {
		err = fmt.Errorf("longer than %d bytes", maxEnvFile)
	}
	if err != nil {
		return nil, name("read", path, err)
	}
	return text, nil
}
