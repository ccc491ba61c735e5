// Package durable owns the one way in which this project writes a file that
// must survive a crash or a power cut: magic, version, length and CRC32C in
// front; a temporary file in the same directory, fsync, rename, fsync of the
// directory; the generation before is kept beside it.
//
// It never interprets a payload, never keeps one in memory and never makes a
// bad file a reason not to start: Load puts it aside and falls back. It owns
// the names of its directory: <name>, <name>.prev, <name>.bad-<time> and the
// temporary .tmp-*.
//
// A Dir has no state and may be used from any goroutine, but each name has one
// writer: two Saves of one name at once leave one of the two contents, whole.
package durable

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// MaxPayload is the size in bytes that Save refuses to exceed and beyond which
// Load calls a file bad: a length field that lies must not take the memory of
// the node.
const MaxPayload = 64 << 20

// maxBad is how many bad files of one directory are kept for an operator to
// look at; more would let a fault that repeats fill the disk.
const maxBad = 16

const (
	tempPrefix = ".tmp-"
	prevSuffix = ".prev"
	badInfix   = ".bad-"
)

// Config says where a Dir is.
type Config struct {
	// Path is the directory; Prepare makes it with mode 0700.
	Path string
	// Now dates the names of bad files; nil means time.Now.
	Now func() time.Time
}

// Dir is a directory of durable files.
type Dir struct {
	path string
	now  func() time.Time
	uid  uint32
}

// New returns the directory of files at c.Path without touching it.
func New(c Config) (*Dir, error) {
	if !filepath.IsAbs(c.Path) {
		return nil, fmt.Errorf("use state directory %q: path is not absolute", c.Path)
	}
	now := c.Now
	if now == nil {
		now = time.Now
	}
	return &Dir{path: filepath.Clean(c.Path), now: now, uid: uint32(os.Geteuid())}, nil
}

// Prepare makes the directory where it is missing and removes what a crash
// left: temporary files, and bad files beyond the newest 16. It returns the
// names removed. On a read-only or full file system the litter stays and the
// error says so; the files can be loaded all the same.
func (d *Dir) Prepare() (removed []string, err error) {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	fd, err := d.open()
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, fmt.Errorf("list state directory: %w", err)
	}
	for _, name := range litter(entries) {
		if e := unix.Unlinkat(fd, name, 0); e != nil && e != unix.ENOENT {
			err = errors.Join(err, fmt.Errorf("remove left-over %s: %w", filepath.Join(d.path, name), e))
			continue
		}
		removed = append(removed, name)
	}
	return removed, err
}

// litter returns the temporary files and the oldest bad files of a directory.
func litter(entries []os.DirEntry) []string {
	var out, bad []string
	for _, e := range entries {
		switch name := e.Name(); {
		case e.IsDir():
		case strings.HasPrefix(name, tempPrefix):
			out = append(out, name)
		case strings.Contains(name, badInfix):
			bad = append(bad, name)
		}
	}
	if len(bad) <= maxBad {
		return out
	}
	slices.SortFunc(bad, olderFirst)
	return append(out, bad[:len(bad)-maxBad]...)
}

// olderFirst orders names of bad files by their time stamp.
func olderFirst(a, b string) int {
	_, sa, _ := strings.Cut(a, badInfix)
	_, sb, _ := strings.Cut(b, badInfix)
	return cmp.Or(cmp.Compare(sa, sb), cmp.Compare(a, b))
}

// Names returns the names that have a current or a previous generation, sorted.
func (d *Dir) Names() ([]string, error) {
	entries, err := os.ReadDir(d.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list state directory: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name := strings.TrimSuffix(e.Name(), prevSuffix); checkName(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Remove deletes every generation of name and makes that durable. A name that
// does not exist is no error.
func (d *Dir) Remove(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	fd, err := d.open()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// The previous generation goes first: a cut between the two leaves the
	// newest content, never an older one.
	for _, n := range []string{name + prevSuffix, name} {
		if err := unix.Unlinkat(fd, n, 0); err != nil && err != unix.ENOENT {
			return fmt.Errorf("remove state file %s: %w", d.full(n), err)
		}
	}
	if err := unix.Fsync(fd); err != nil {
		return fmt.Errorf("sync state directory %s: %w", d.path, err)
	}
	return nil
}

// open opens the directory and refuses one that somebody else could write to:
// who controls the directory controls what we load.
func (d *Dir) open() (int, error) {
	fd, err := unix.Open(d.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open state directory %s: %w", d.path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("stat state directory %s: %w", d.path, err)
	}
	if why := foreign(&st, d.uid); why != "" {
		unix.Close(fd)
		return -1, fmt.Errorf("use state directory %s: %s", d.path, why)
	}
	return fd, nil
}

// foreign says why what st describes could have been written by somebody else.
func foreign(st *unix.Stat_t, uid uint32) string {
	if st.Uid != uid {
		return fmt.Sprintf("owned by uid %d, not %d", st.Uid, uid)
	}
	if st.Mode&0o022 != 0 {
		return fmt.Sprintf("mode %#o lets others write", st.Mode&0o7777)
	}
	return ""
}

func (d *Dir) full(name string) string { return filepath.Join(d.path, name) }

// checkName refuses a name that leaves the directory or that collides with the
// names this package makes itself.
func checkName(name string) error {
	switch {
	case name == "", len(name) > 200, strings.ContainsAny(name, "/\x00"), strings.HasPrefix(name, "."),
		strings.HasSuffix(name, prevSuffix), strings.Contains(name, badInfix):
		return fmt.Errorf("use state file name %q: not a plain name", name)
	}
	return nil
}

// IsNoSpace tells whether err is a full disk, exhausted inodes or a quota.
func IsNoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// IsReadOnly tells whether err is a read-only file system.
func IsReadOnly(err error) bool { return errors.Is(err, unix.EROFS) }
