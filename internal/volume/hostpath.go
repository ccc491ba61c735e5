package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/mkdir"
)

// hostPath judges the path by its type, makes what the type says, and returns
// it without links. A path on a server that is dead may hang: then ctx ends the
// wait.
func (v *Volumes) hostPath(ctx context.Context, h *corev1.HostPathVolumeSource) (string, error) {
	found := make(chan string, 1)
	err := v.looks.do(ctx, h.Path, func() error {
		if err := checkHostPath(h); err != nil {
			return err
		}
		path, err := filepath.EvalSymlinks(h.Path)
		found <- path
		return err
	})
	if err != nil {
		return "", err
	}
	return <-found, nil
}

// checkHostPath is kubelet's check (pkg/volume/hostpath, checkTypeInternal), in
// its words. A path of no type is made a directory where there is nothing, as
// the runtime does for kubelet.
func checkHostPath(h *corev1.HostPathVolumeSource) error {
	kind := corev1.HostPathUnset
	if h.Type != nil {
		kind = *h.Type
	}
	st, err := os.Stat(h.Path)
	if errors.Is(err, fs.ErrNotExist) {
		switch kind {
		case corev1.HostPathUnset, corev1.HostPathDirectoryOrCreate:
			return mkdir.All(h.Path, 0o755)
		case corev1.HostPathFileOrCreate:
			return makeFile(h.Path, 0o644)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	is, what := hostPathIs(kind, st)
	if !is {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", h.Path, what)
	}
	return nil
}

// hostPathIs tells whether st, nil for nothing, is of the kind, and what that is.
func hostPathIs(kind corev1.HostPathType, st fs.FileInfo) (is bool, what string) {
	var mode fs.FileMode
	if st != nil {
		mode = st.Mode()
	}
	const device, char = fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice
	switch kind {
	case corev1.HostPathUnset:
		return true, ""
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		return st != nil && mode.IsDir(), "directory"
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		return st != nil && mode.IsRegular(), "file"
	case corev1.HostPathSocket:
		return mode&fs.ModeType == fs.ModeSocket, "socket file"
	case corev1.HostPathCharDev:
		return mode&fs.ModeType == char, "character device"
	case corev1.HostPathBlockDev:
		return mode&fs.ModeType == device, "block device"
	}
	return false, string(kind) + ", which is no type"
}

// makeFile makes an empty file with exactly the mode, whatever the umask is.
func makeFile(path string, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, mode)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(mode), f.Close())
}

// looks are the looks at paths that may be on a dead server. While one hangs no
// second one at the same path begins: at most one goroutine a path waits in the
// kernel, for as long as the kernel makes it.
type looks struct {
	mu    sync.Mutex
	under map[string]chan struct{} // closed when the look ends
}

func (l *looks) do(ctx context.Context, path string, look func() error) error {
	for {
		ended, busy := l.begin(path)
		if !busy {
			done := make(chan error, 1)
			go func() {
				defer l.end(path)
				done <- look()
			}()
			select {
			case err := <-done:
				return err
			case <-ctx.Done():
				return fmt.Errorf("look at %s: it does not answer: %w", path, context.Cause(ctx))
			}
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return fmt.Errorf("look at %s: an earlier look at it hangs: %w", path, context.Cause(ctx))
		}
	}
}

func (l *looks) begin(path string) (ended chan struct{}, busy bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ended, busy = l.under[path]; busy {
		return ended, true
	}
	if l.under == nil {
		l.under = map[string]chan struct{}{}
	}
	l.under[path] = make(chan struct{})
	return nil, false
}

func (l *looks) end(path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.under[path])
	delete(l.under, path)
}
