package poddir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/failpoint"
	"nodeagent/internal/logs"
	"nodeagent/internal/mkdir"
	"nodeagent/internal/pod/etc"
	"nodeagent/internal/rmdir"
)

// Config says where the directories are.
type Config struct {
	RootDir           string // /var/lib/kubelet
	PodLogsDir        string // /var/log/pods
	ContainersLogsDir string // /var/log/containers; "": no links
	// DNS is what the node knows about names when a pod starts.
	DNS func() etc.DNS
	// NodeHosts is the node's hosts file, which pods on its network get.
	NodeHosts string
}

// Dirs makes and removes pods' directories.
type Dirs struct{ cfg Config }

// New returns Dirs; it makes nothing yet.
func New(cfg Config) (*Dirs, error) {
	if cfg.RootDir == "" || cfg.PodLogsDir == "" || cfg.DNS == nil {
		return nil, errors.New("configure pod directories: root directory, log directory and DNS are needed")
	}
	if cfg.NodeHosts == "" {
		cfg.NodeHosts = "/etc/hosts"
	}
	return &Dirs{cfg: cfg}, nil
}

// pod is the directory of the pod's own state.
func (d *Dirs) pod(uid types.UID) string { return filepath.Join(d.cfg.RootDir, "pods", string(uid)) }

// LogDirectory is where the pod's containers log to.
func (d *Dirs) LogDirectory(uid types.UID, namespace, name string) string {
	return filepath.Join(d.cfg.PodLogsDir, namespace+"_"+name+"_"+string(uid))
}

// NextAttempt is one more than the last run of the container that has left a
// log, 0 where none has (kubelet: calcRestartCountByLogDir). A directory that
// cannot be read tells of none.
func (d *Dirs) NextAttempt(uid types.UID, namespace, name, container string) uint32 {
	if plain(string(uid), namespace, name, container) != nil {
		return 0
	}
	runs, err := logs.Instances(filepath.Join(d.LogDirectory(uid, namespace, name), container))
	if err != nil || len(runs) == 0 || runs[len(runs)-1] >= math.MaxInt32 {
		return 0
	}
	return uint32(runs[len(runs)-1]) + 1
}

// Prepare makes the pod's directories and tells when it first did: the birth of the
// pod's own directory, which outlives daemons, sandboxes and reboots. It is zero on a
// file system that keeps no births.
func (d *Dirs) Prepare(p *corev1.Pod) (time.Time, error) {
	if err := plain(string(p.UID), p.Namespace, p.Name); err != nil {
		return time.Time{}, err
	}
	if err := failpoint.At(failpoint.PodDirPrepareBefore); err != nil {
		return time.Time{}, err
	}
	for _, dir := range []struct {
		path string
		mode fs.FileMode
	}{
		{d.pod(p.UID), 0o750},
		{filepath.Join(d.pod(p.UID), "containers"), 0o750},
		{d.LogDirectory(p.UID, p.Namespace, p.Name), 0o755},
	} {
		if err := mkdir.All(dir.path, dir.mode); err != nil {
			return time.Time{}, fmt.Errorf("make the pod's directory: %w", err)
		}
	}
	return birth(d.pod(p.UID)), failpoint.At(failpoint.PodDirPrepareAfter)
}

func birth(path string) time.Time {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME, &st)
	if err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return time.Time{}
	}
	return time.Unix(st.Btime.Sec, int64(st.Btime.Nsec))
}

// Remove deletes the pod's directories and the links to its logs. It stops at a
// mount: what is mounted below is not the pod's to delete.
func (d *Dirs) Remove(ctx context.Context, uid types.UID, namespace, name string) error {
	if err := plain(string(uid), namespace, name); err != nil {
		return err
	}
	if err := failpoint.At(failpoint.PodDirRemoveBefore); err != nil {
		return err
	}
	logs := d.LogDirectory(uid, namespace, name)
	err := errors.Join(d.unlinkLogs(logs), rmdir.Tree(ctx, logs), d.removePod(ctx, uid))
	if err != nil {
		return fmt.Errorf("remove the pod's directories: %w", err)
	}
	return failpoint.At(failpoint.PodDirRemoveAfter)
}

// removePod deletes the pod's own directory, but not while a volume of it is
// left: what that holds is deleted by who knows whether it may be.
func (d *Dirs) removePod(ctx context.Context, uid types.UID) error {
	entries, err := os.ReadDir(d.pod(uid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); name == "volumes" || name == "volume-subpaths" || name == "volumeDevices" {
			return fmt.Errorf("%s is left: its volumes are not cleaned up", filepath.Join(d.pod(uid), name))
		}
	}
	return rmdir.Tree(ctx, d.pod(uid))
}

// Stray removes the directories of pods for which keep is false.
func (d *Dirs) Stray(ctx context.Context, keep func(types.UID) bool) error {
	var errs []error
	pods, err := os.ReadDir(filepath.Join(d.cfg.RootDir, "pods"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range pods {
		if uid := types.UID(e.Name()); !keep(uid) {
			errs = append(errs, d.removePod(ctx, uid))
		}
	}
	logs, err := os.ReadDir(d.cfg.PodLogsDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range logs {
		parts := strings.Split(e.Name(), "_")
		if len(parts) != 3 || keep(types.UID(parts[2])) {
			continue
		}
		dir := filepath.Join(d.cfg.PodLogsDir, e.Name())
		errs = append(errs, d.unlinkLogs(dir), rmdir.Tree(ctx, dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove directories of pods that are gone: %w", err)
	}
	return nil
}

// plain refuses names that would lead out of the directories. Validation does
// too; this is the last place before a deletion.
func plain(names ...string) error {
	for _, n := range names {
		if n == "" || n == "." || n == ".." || strings.ContainsAny(n, "/\x00") {
			return fmt.Errorf("use %q as the name of a directory: it is not a plain name", n)
		}
	}
	return nil
}
