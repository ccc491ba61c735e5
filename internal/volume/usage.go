package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/openat2"
)

// Usage is what one volume takes of the node. Of a hostPath volume nothing is
// told: what it shows is not the pod's.
type Usage struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"` // empty-dir, configmap, …: kubelet's name of the directory
	Path   string `json:"path"`
	Bytes  uint64 `json:"bytes"`  // taken, as du counts
	Inodes uint64 `json:"inodes"` // files, directories and links
	// Capacity, Available and Files are of one that is a file system of its own: bytes,
	// and how many inodes it has in all.
	Capacity  uint64 `json:"capacity,omitempty"`
	Available uint64 `json:"available,omitempty"`
	Files     uint64 `json:"files,omitempty"`
	Partial   bool   `json:"partial,omitempty"` // it is so large or deep that only a part was counted
}

// Measure tells what the volumes of a pod take, each at most within ctx. It
// reads the node's files only, and needs no daemon.
func Measure(ctx context.Context, rootDir string, uid types.UID) ([]Usage, error) {
	if err := plain(string(uid)); err != nil {
		return nil, err
	}
	all := []Usage{}
	for _, kind := range plugins {
		dir := filepath.Join(rootDir, "pods", string(uid), "volumes", string(kind))
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return all, fmt.Errorf("look at the pod's volumes: %w", err)
		}
		for _, e := range entries {
			if plain(e.Name()) != nil {
				continue // not complete yet
			}
			_, short, _ := strings.Cut(string(kind), "~")
			u := Usage{Name: e.Name(), Kind: short, Path: filepath.Join(dir, e.Name())}
			if err := u.measure(ctx); err != nil {
				return all, fmt.Errorf("measure volume %s: %w", u.Name, err)
			}
			all = append(all, u)
		}
	}
	return all, nil
}

// measure asks a file system of its own, and counts in any other directory.
func (u *Usage) measure(ctx context.Context) error {
	mounted, err := isMount(u.Path)
	if err != nil {
		return err
	}
	if !mounted {
		fd, err := unix.Open(u.Path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: u.Path, Err: err}
		}
		c := counter{usage: u, linked: map[uint64]bool{}}
		u.Partial = !c.count(ctx, os.NewFile(uintptr(fd), u.Path), 0)
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(u.Path, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: u.Path, Err: err}
	}
	u.Capacity, u.Available, u.Files = st.Blocks*uint64(st.Bsize), st.Bavail*uint64(st.Bsize), st.Files
	u.Bytes, u.Inodes = (st.Blocks-st.Bfree)*uint64(st.Bsize), st.Files-st.Ffree
	return nil
}

const (
	countDepth = 64   // directories open at a time
	countNames = 1024 // names read at a time
	countLinks = 1 << 16
)

// counter counts as du does: blocks, and a file of several names once.
type counter struct {
	usage  *Usage
	linked map[uint64]bool // inodes of files with several names
}

// count adds what the directory holds and closes it; it tells whether that was
// all. It follows no link and crosses no mount.
func (c *counter) count(ctx context.Context, dir *os.File, depth int) (whole bool) {
	defer dir.Close()
	whole = true
	for {
		names, err := dir.Readdirnames(countNames)
		for _, name := range names {
			whole = c.entry(ctx, dir, name, depth) && whole
		}
		if errors.Is(err, io.EOF) {
			return whole
		}
		if err != nil || ctx.Err() != nil {
			return false
		}
	}
}

func (c *counter) entry(ctx context.Context, dir *os.File, name string, depth int) (whole bool) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT); err != nil {
		return errors.Is(err, unix.ENOENT)
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if !isDir && st.Nlink > 1 {
		if c.linked[st.Ino] {
			return true
		}
		if len(c.linked) < countLinks {
			c.linked[st.Ino] = true
		}
	}
	c.usage.Inodes++
	c.usage.Bytes += uint64(st.Blocks) * 512
	if !isDir {
		return true
	}
	if depth >= countDepth || ctx.Err() != nil {
		return false
	}
	fd, err := openat2.Open(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW,
		unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV)
	switch {
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return true // a mount is not the volume's; the others went meanwhile
	case err != nil:
		return false
	}
	return c.count(ctx, os.NewFile(uintptr(fd), name), depth+1)
}
