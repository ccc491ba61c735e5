package volume

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Permissions that a pod's group gets, of files and, beside those, of directories
// (kubelet, volume_linux.go).
const (
	groupFile = 0o660
	groupDir  = 0o110 | unix.S_ISGID
)

// maxDepth bounds how deep a tree may be that is given to a group: one descriptor
// a level is open meanwhile.
const maxDepth = 512

// groupOwns tells whether a directory is the group's already.
func groupOwns(st *unix.Stat_t, gid int64) bool {
	return int64(st.Gid) == gid && st.Mode&(groupFile|groupDir) == groupFile|groupDir
}

// give makes everything in an open tree the group's. The tree is hostile: links
// are not followed, whatever happens to them meanwhile, since everything goes by
// descriptors. The root goes last: where it is the group's, all is.
func give(tree int, gid int64) error {
	fd, err := unix.Openat(tree, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return name("open", "the volume", err)
	}
	root := os.NewFile(uintptr(fd), ".")
	defer root.Close()
	if err := giveBelow(root, gid, 0); err != nil {
		return fmt.Errorf("give the volume to the group %d: %w", gid, err)
	}
	return giveOne(fd, gid)
}

func giveBelow(dir *os.File, gid int64, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("its directories are more than %d deep", maxDepth)
	}
	for {
		names, err := dir.Readdirnames(1024)
		for _, n := range names {
			if err := giveNamed(dir, n, gid, depth); err != nil {
				return err
			}
		}
		if err != nil || len(names) == 0 {
			return nil // the end: what cannot be read any more is gone
		}
	}
}

func giveNamed(dir *os.File, entry string, gid int64, depth int) error {
	fd, err := unix.Openat(int(dir.Fd()), entry, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return name("open", entry, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return name("stat", entry, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		sub, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return name("open", entry, err)
		}
		below := os.NewFile(uintptr(sub), entry)
		defer below.Close()
		if err := giveBelow(below, gid, depth+1); err != nil {
			return err
		}
	}
	return giveOne(fd, gid)
}

// giveOne gives what the descriptor refers to.
func giveOne(fd int, gid int64) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return name("stat", "an entry", err)
	}
	if err := unix.Fchownat(fd, "", -1, int(gid), unix.AT_EMPTY_PATH); err != nil {
		return name("chown", "an entry", err)
	}
	bits := st.Mode & 0o7777
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return nil
	case unix.S_IFDIR:
		bits |= groupFile | groupDir
	default:
		bits |= groupFile
	}
	return name("chmod", "an entry", unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), bits))
}
