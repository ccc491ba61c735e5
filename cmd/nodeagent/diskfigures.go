package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/node/machine"
	"nodeagent/internal/stats"
)

// localVolume is the kind of volumes that are named by what is behind a claim.
const localVolume = "local-volume"

// diskFigures fits the rooms that know of disks to what figures need of them.
type diskFigures struct {
	d *daemon

	mu     sync.Mutex
	layers string // where the snapshotter has them; "": containerd has not said yet
}

// FileSystems implements stats.Disk. As long as containerd has not said where it keeps
// layers, they are taken to be beside the pods' files.
func (f *diskFigures) FileSystems(ctx context.Context) (node, images stats.FileSystem, err error) {
	if node, err = fileSystem(f.d.cfg.RootDir); err != nil {
		return node, images, err
	}
	if root := f.layersRoot(ctx); root != "" {
		if images, err = fileSystem(root); err == nil {
			return node, images, nil
		}
	}
	return node, node, nil
}

// layersTime is how long containerd may take to say where layers are.
const layersTime = time.Second

func (f *diskFigures) layersRoot(ctx context.Context) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.layers == "" && f.d.runtime.Healthy() == nil {
		ctx, cancel := context.WithTimeout(ctx, layersTime)
		defer cancel()
		f.layers, _ = f.d.runtime.SnapshotRoot(ctx) // asked again the next time
	}
	return f.layers
}

func fileSystem(dir string) (stats.FileSystem, error) {
	at := time.Now()
	fs, err := machine.ReadFileSystem(dir)
	return stats.FileSystem{
		Device: fs.Device, At: at, Capacity: fs.Capacity, Available: fs.Available, Used: fs.Used, Inodes: fs.Inodes, InodesFree: fs.InodesFree,
	}, err
}

// Volumes implements stats.Disk.
func (f *diskFigures) Volumes(_ context.Context, pods []*corev1.Pod) map[types.UID][]stats.Volume {
	return f.d.volumeFigures(pods)
}

// Layer implements stats.Disk.
func (f *diskFigures) Layer(ctx context.Context, container string) (bytes, inodes uint64, err error) {
	return f.d.runtime.LayerUsage(ctx, container)
}

// maxLogFiles is more files than rotation ever leaves.
const maxLogFiles = 1024

// Logs implements stats.Disk: what the files of the directory take.
func (f *diskFigures) Logs(path string) (bytes, inodes uint64, err error) {
	dir, err := os.OpenFile(filepath.Dir(path), os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, 0, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxLogFiles)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, 0, err
	}
	for _, name := range names {
		var st unix.Stat_t
		err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, fs.ErrNotExist) {
			continue // rotated meanwhile
		}
		if err != nil {
			return 0, 0, err
		}
		bytes, inodes = bytes+uint64(st.Blocks)*512, inodes+1
	}
	return bytes, inodes, nil
}
