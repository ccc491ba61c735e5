package cgroups

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Kernel is what the tree changes, so that tests can stand in for a kernel
// that this machine has not. Files are read from the directories directly.
type Kernel interface {
	// Hierarchies lists the cgroup file systems at or just below a directory.
	Hierarchies(mountpoint string) ([]Hierarchy, error)
	// Mkdir makes one cgroup; EEXIST when it is there.
	Mkdir(dir string) error
	// Rmdir removes one cgroup; EBUSY when it has processes or children.
	Rmdir(dir string) error
	// Write writes a control file that exists.
	Write(file, value string) error
}

// Hierarchy is one mounted cgroup file system.
type Hierarchy struct {
	Dir         string   // where it is mounted
	Unified     bool     // cgroup v2
	Controllers []string // of v1: from the mount options; "name=systemd" for a named one
}

// has tells whether a v1 hierarchy has the controller.
func (h Hierarchy) has(controller string) bool {
	for _, c := range h.Controllers {
		if c == controller {
			return true
		}
	}
	return false
}

// linux is the running kernel.
type linux struct{}

func (linux) Hierarchies(mountpoint string) ([]Hierarchy, error) {
	mounts, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		cgroup := i.FSType == "cgroup" || i.FSType == "cgroup2"
		here := i.Mountpoint == mountpoint || filepath.Dir(i.Mountpoint) == mountpoint
		return !cgroup || !here, false
	})
	if err != nil {
		return nil, fmt.Errorf("list cgroup mounts: %w", err)
	}
	var out []Hierarchy
	for _, m := range mounts {
		if m.FSType == "cgroup2" {
			out = append(out, Hierarchy{Dir: m.Mountpoint, Unified: true})
			continue
		}
		out = append(out, Hierarchy{Dir: m.Mountpoint, Controllers: v1Controllers(m.VFSOptions)})
	}
	return out, nil
}

// v1Controllers picks the controllers out of a v1 mount's options, of which
// the others are of no interest.
func v1Controllers(options string) []string {
	var out []string
	for o := range strings.SplitSeq(options, ",") {
		switch {
		case o == "rw" || o == "ro" || o == "xattr" || o == "clone_children" || o == "noprefix":
		case strings.HasPrefix(o, "release_agent="):
		default:
			out = append(out, o)
		}
	}
	return out
}

func (linux) Mkdir(dir string) error {
	if err := pathError("mkdir", dir, ignoringEINTR(func() error { return unix.Mkdir(dir, 0o755) })); err != nil {
		return err
	}
	// The daemon's umask is its own business; what looks at cgroups, or lives in
	// one, is not always root.
	return pathError("chmod", dir, unix.Chmod(dir, 0o755))
}

func (linux) Rmdir(dir string) error {
	return pathError("rmdir", dir, ignoringEINTR(func() error { return unix.Rmdir(dir) }))
}

// Write uses bare system calls: it is on the path of every pod's start, and a
// control file is neither created nor truncated nor worth a poller.
func (linux) Write(file, value string) error {
	var fd int
	err := ignoringEINTR(func() (err error) {
		fd, err = unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return pathError("open", file, err)
	}
	defer unix.Close(fd)
	err = ignoringEINTR(func() error {
		_, err := unix.Write(fd, []byte(value))
		return err
	})
	return pathError("write "+value+" to", file, err)
}

// readControl reads a control file of one short value, with bare system calls
// like Write.
func readControl(file string) (string, error) {
	var fd, n int
	err := ignoringEINTR(func() (err error) {
		fd, err = unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return "", pathError("open", file, err)
	}
	defer unix.Close(fd)
	var buf [128]byte
	err = ignoringEINTR(func() (err error) {
		n, err = unix.Read(fd, buf[:])
		return err
	})
	if err != nil {
		return "", pathError("read", file, err)
	}
	return string(buf[:n]), nil
}

func ignoringEINTR(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}
