package gather

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"nodeagent/internal/hostcheck"
)

// Uses of Config.Dirs that mean more than that they are written to.
const (
	UseRoot  = "root-dir"
	UseImage = "containerd"
)

// diskProbes is one probe for each directory: a file server that hangs hides no
// other.
func (g *gatherer) diskProbes() []probe {
	var all []probe
	for _, use := range sorted(g.Dirs) {
		all = append(all, probe{"file system of " + g.Dirs[use], func(context.Context) (see, error) {
			d, err := disk(use, g.Dirs[use])
			if err != nil {
				return nil, err
			}
			return func(f *hostcheck.Facts) { addDisk(f, d) }, nil
		}})
	}
	return all
}

// addDisk adds a directory's file system, or the use to one that is known.
func addDisk(f *hostcheck.Facts, d hostcheck.Disk) {
	for i := range f.Disks {
		if have := &f.Disks[i]; have.Mount == d.Mount {
			have.Uses = append(have.Uses, d.Uses...)
			have.Image, have.Pods = have.Image || d.Image, have.Pods || d.Pods
			return
		}
	}
	f.Disks = append(f.Disks, d)
}

// disk looks at the file system of a directory, or of where it will be made.
func disk(use, dir string) (hostcheck.Disk, error) {
	d := hostcheck.Disk{Uses: []string{use + " " + dir}, Image: use == UseImage, Pods: use == UseRoot}
	at, err := existing(dir)
	if err != nil {
		return d, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		return d, fmt.Errorf("look at the file system: %w", err)
	}
	size := uint64(st.Frsize)
	d.Size, d.Free, d.Inodes, d.Left = st.Blocks*size, st.Bavail*size, st.Files, st.Ffree
	d.ReadOnly = st.Flags&unix.ST_RDONLY != 0
	mounts, err := mountinfo.GetMounts(mountinfo.ParentsFilter(at))
	if err != nil {
		return d, fmt.Errorf("list mounts: %w", err)
	}
	// The longest is the innermost, the last of the same the uppermost.
	for _, m := range mounts {
		if len(m.Mountpoint) >= len(d.Mount) {
			d.Mount, d.Type, d.Options = m.Mountpoint, m.FSType, strings.Split(m.Options, ",")
		}
	}
	return d, nil
}

// existing is the directory, or the nearest one above it that is there, with no
// link in its path.
func existing(dir string) (string, error) {
	for {
		real, err := filepath.EvalSymlinks(dir)
		if err == nil {
			return real, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == "/" {
			return "", err
		}
		dir = filepath.Dir(dir)
	}
}

// fuseProbes is one probe for each FUSE mount that pods may look into: lxcfs, and
// what is in the pods' directories.
func (g *gatherer) fuseProbes() []probe {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		matters := m.FSType == "fuse.lxcfs" && m.Root == "/" || strings.HasPrefix(m.Mountpoint, g.PodsDir+"/")
		return !strings.HasPrefix(m.FSType, "fuse") || !matters, false
	})
	if err != nil {
		return []probe{{"FUSE mounts", func(context.Context) (see, error) { return nil, err }}}
	}
	var all []probe
	for _, m := range slices.Clip(mounts) {
		all = append(all, probe{"FUSE mount " + m.Mountpoint, func(ctx context.Context) (see, error) {
			return lookInto(ctx, m, g.Limit)
		}})
	}
	return all
}

// lookInto asks a FUSE mount for its root. A daemon that hangs is as broken as
// one that died, so that this probe has an answer of its own in time.
func lookInto(ctx context.Context, m *mountinfo.Info, limit time.Duration) (see, error) {
	done := make(chan error, 1)
	go func() {
		var st unix.Stat_t
		done <- unix.Stat(m.Mountpoint, &st)
	}()
	said := ""
	select {
	case err := <-done:
		switch {
		case errors.Is(err, unix.EACCES):
			return nil, errNotRoot
		case errors.Is(err, unix.ENOTCONN):
			said = "its daemon is gone (transport endpoint is not connected)"
		case err != nil:
			said = err.Error()
		}
	case <-ctx.Done():
		said = fmt.Sprintf("its daemon gives no answer within %v", limit)
	}
	return func(f *hostcheck.Facts) {
		f.Fuses = append(f.Fuses, hostcheck.Fuse{Mount: m.Mountpoint, Type: m.FSType, Error: said})
	}, nil
}
