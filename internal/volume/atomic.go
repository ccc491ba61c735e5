package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/failpoint"
	"nodeagent/internal/mkdir"
	"nodeagent/internal/openat2"
	"nodeagent/internal/rmdir"
)

// What a volume that shows objects consists of, under kubelet's names:
//
//	..2026_11_21_14_03_09.123456789/   the files
//	..data -> ..2026_11_21_14_03_09.123456789
//	key -> ..data/key                  what containers open
//
// A change makes the next directory and renames a new ..data over the old one:
// a container sees all files of one state or all of the next.
const (
	dataLink = "..data"
	newLink  = "..data_tmp"
)

// show makes the volume at dir show the files, at once and all together. It
// changes nothing where they are shown already, but finishes what a killed
// daemon left half done. Everything goes by descriptors and follows no link.
func show(ctx context.Context, dir string, files payload, gid int64) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	s := shower{root: os.NewFile(uintptr(fd), dir), files: files, gid: gid}
	defer s.root.Close()
	current := s.current()
	if current == "" || !s.same(current) {
		if current, err = s.swap(ctx); err != nil {
			return err
		}
	}
	if err := s.link(ctx); err != nil {
		return err
	}
	return s.tidy(ctx, current)
}

type shower struct {
	root  *os.File
	files payload
	gid   int64
}

func (s *shower) fd() int { return int(s.root.Fd()) }

// current is the directory that ..data leads to, "" for none.
func (s *shower) current() string {
	name, err := readlinkat(s.fd(), dataLink)
	if err != nil || !strings.HasPrefix(name, "..") || strings.Contains(name, "/") || len(name) < 3 {
		return ""
	}
	return name
}

// same tells whether the directory holds the files and nothing else.
func (s *shower) same(name string) bool {
	seen := 0
	ok := s.walk(name, "", func(dir int, entry, full string) bool {
		seen++
		want, known := s.files[full]
		return known && s.sameFile(dir, entry, want)
	})
	return ok && seen == len(s.files)
}

// walk calls look with each file below the directory name, until it says no.
// full is the file's path in the volume.
func (s *shower) walk(name, prefix string, look func(dir int, entry, full string) bool) bool {
	fd, err := beneath(s.fd(), name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return false
	}
	for _, e := range entries {
		full := path.Join(prefix, e.Name())
		if e.IsDir() {
			if !s.walk(name+"/"+e.Name(), full, look) {
				return false
			}
		} else if !look(fd, e.Name(), full) {
			return false
		}
	}
	return true
}

func (s *shower) sameFile(dir int, name string, want file) bool {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != int64(len(want.data)) ||
		st.Mode&0o7777 != s.bits(want.mode) || st.Uid != want.uid || s.gid >= 0 && int64(st.Gid) != s.gid {
		return false
	}
	have, err := io.ReadAll(io.LimitReader(f, st.Size+1))
	return err == nil && bytes.Equal(have, want.data)
}

// bits are the permissions of a file; those who are in the pod's group may read
// what its owner may (kubelet, SetVolumeOwnership of a volume that is read-only).
func (s *shower) bits(mode uint32) uint32 {
	if s.gid < 0 {
		return mode & 0o777
	}
	return mode&0o777 | 0o440
}

// swap writes the files to a directory of their own and makes ..data lead there.
func (s *shower) swap(ctx context.Context) (name string, err error) {
	if err := failpoint.At(failpoint.VolumeWriteBefore); err != nil {
		return "", err
	}
	name = fmt.Sprintf("%s.%09d", time.Now().UTC().Format("..2006_01_02_15_04_05"), rand.IntN(1e9))
	if err := s.mkdir(s.fd(), name); err != nil {
		return "", err
	}
	for _, at := range slices.Sorted(maps.Keys(s.files)) {
		if err := s.write(name, at, s.files[at]); err != nil {
			return "", err
		}
	}
	if err := failpoint.At(failpoint.VolumeWriteAfter); err != nil {
		return "", err
	}
	if err := s.clear(ctx, newLink); err != nil {
		return "", err
	}
	if err := unix.Symlinkat(name, s.fd(), newLink); err != nil {
		return "", s.fails("link", newLink, err)
	}
	err = unix.Renameat(s.fd(), newLink, s.fd(), dataLink)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOTEMPTY) { // put there by somebody
		if err = s.clear(ctx, dataLink); err == nil {
			err = unix.Renameat(s.fd(), newLink, s.fd(), dataLink)
		}
	}
	if err != nil {
		return "", s.fails("rename", newLink, err)
	}
	return name, failpoint.At(failpoint.VolumeSwapAfter)
}

// write makes one file below the new directory, which nobody else knows yet.
func (s *shower) write(top, at string, f file) error {
	dir := top
	parts := strings.Split(at, "/")
	for _, part := range parts[:len(parts)-1] {
		parent, err := beneath(s.fd(), dir, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return s.fails("open", dir, err)
		}
		err = s.mkdir(parent, part)
		_ = unix.Close(parent)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		dir += "/" + part
	}
	parent, err := beneath(s.fd(), dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return s.fails("open", dir, err)
	}
	defer unix.Close(parent)
	fd, err := unix.Openat(parent, parts[len(parts)-1], unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return s.fails("make", at, err)
	}
	out := os.NewFile(uintptr(fd), at)
	_, err = out.Write(f.data)
	if err == nil && (s.gid >= 0 || f.uid != 0) {
		err = unix.Fchown(fd, int(f.uid), int(s.gid)) // -1 leaves the group as it is
	}
	if err == nil {
		err = unix.Fchmod(fd, s.bits(f.mode))
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return s.fails("write", at, err)
	}
	return nil
}

// mkdir makes a directory that the pod's users may look into.
func (s *shower) mkdir(parent int, name string) error {
	if err := mkdir.At(parent, name, 0o755); err != nil || s.gid < 0 {
		return err
	}
	if err := unix.Fchownat(parent, name, 0, int(s.gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return s.fails("chown", name, err)
	}
	if err := unix.Fchmodat(parent, name, owner{mode: 0o755, gid: s.gid, readOnly: true}.bits(), 0); err != nil {
		return s.fails("chmod", name, err)
	}
	return nil
}

// link makes, for each first name of the files' paths, the link through ..data.
func (s *shower) link(ctx context.Context) error {
	for at := range s.files {
		name, _, _ := strings.Cut(at, "/")
		to := dataLink + "/" + name
		if have, err := readlinkat(s.fd(), name); err == nil && have == to {
			continue
		}
		// What is there is no link of ours: a directory that a missing subPath
		// made, perhaps.
		if err := s.clear(ctx, name); err != nil {
			return err
		}
		if err := unix.Symlinkat(to, s.fd(), name); err != nil {
			return s.fails("link", name, err)
		}
	}
	return nil
}

// tidy removes links to files that are gone, and directories that ..data does
// not lead to.
func (s *shower) tidy(ctx context.Context, current string) error {
	entries, err := s.root.Readdirnames(-1)
	if err != nil {
		return s.fails("read", "", err)
	}
	first := map[string]bool{}
	for at := range s.files {
		name, _, _ := strings.Cut(at, "/")
		first[name] = true
	}
	for _, name := range entries {
		switch to, _ := readlinkat(s.fd(), name); {
		case name == dataLink, name == current, first[name]:
		case strings.HasPrefix(name, ".."), to == dataLink+"/"+name:
			if err := s.clear(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// clear removes whatever has the name in the volume.
func (s *shower) clear(ctx context.Context, name string) error {
	return rmdir.At(ctx, s.fd(), name, s.root.Name()+"/"+name)
}

func (s *shower) fails(op, name string, err error) error {
	return &os.PathError{Op: op, Path: s.root.Name() + "/" + name, Err: err}
}

// beneath opens what lies below an open directory, through no link.
func beneath(dir int, name string, flags uint64) (int, error) {
	return openat2.Open(dir, name, flags, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
}

func readlinkat(dir int, name string) (string, error) {
	buf := make([]byte, maxNameLength+len(dataLink)+2)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}
