package durable

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Generation tells which file a payload came from.
type Generation int

// The generations of a file, from none to newest.
const (
	None Generation = iota
	Previous
	Current
)

// Loaded is what Load found.
type Loaded struct {
	Generation Generation
	Version    uint32
	Payload    []byte
	// Bad holds the files that could not be used, newest generation first.
	// The caller reports them; it starts all the same.
	Bad []Bad
}

// Bad is one file that could not be used.
type Bad struct {
	Path   string
	Aside  string // where it was moved to; empty where that failed too
	Reason error
}

// Load returns the newest generation of name that is whole, belongs to us and
// that accept takes (nil takes all). accept decodes the payload, so that a
// version from the future or a payload of nonsense falls back just as a flipped
// bit does. A file that is refused is moved to <name>.bad-<time>.
//
// Nothing there is Generation None and no error. The only error is a directory
// that exists and cannot be used.
func (d *Dir) Load(name string, accept func(version uint32, payload []byte) error) (Loaded, error) {
	return d.load(name, accept, d.putAside)
}

// Peek is Load for who may only look: a file that is refused stays where it is.
func (d *Dir) Peek(name string, accept func(version uint32, payload []byte) error) (Loaded, error) {
	return d.load(name, accept, func(_ int, file string, reason error) Bad { return Bad{Path: d.full(file), Reason: reason} })
}

func (d *Dir) load(name string, accept func(version uint32, payload []byte) error, refuse func(dir int, file string, reason error) Bad) (Loaded, error) {
	var l Loaded
	if err := checkName(name); err != nil {
		return l, err
	}
	fd, err := d.open()
	if errors.Is(err, os.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	defer unix.Close(fd)
	for _, g := range []Generation{Current, Previous} {
		file := name
		if g == Previous {
			file += prevSuffix
		}
		version, payload, err := d.read(fd, file, accept)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			l.Bad = append(l.Bad, refuse(fd, file, err))
			continue
		}
		l.Generation, l.Version, l.Payload = g, version, payload
		return l, nil
	}
	return l, nil
}

func (d *Dir) read(dir int, file string, accept func(uint32, []byte) error) (uint32, []byte, error) {
	// O_NONBLOCK: a FIFO in place of the file must not hang us.
	fd, err := unix.Openat(dir, file, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, nil, fmt.Errorf("open: %w", err)
	}
	f := os.NewFile(uintptr(fd), file)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, nil, fmt.Errorf("stat: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0, nil, errors.New("not a regular file")
	}
	if why := foreign(&st, d.uid); why != "" {
		return 0, nil, errors.New(why)
	}
	if st.Size > MaxPayload+headerSize {
		return 0, nil, fmt.Errorf("%d bytes are more than %d", st.Size, MaxPayload+headerSize)
	}
	content, err := io.ReadAll(io.LimitReader(f, MaxPayload+headerSize+1))
	if err != nil {
		return 0, nil, fmt.Errorf("read: %w", err)
	}
	version, payload, err := decode(content)
	if err != nil {
		return 0, nil, err
	}
	if accept != nil {
		if err := accept(version, payload); err != nil {
			return 0, nil, err
		}
	}
	return version, payload, nil
}

// putAside renames a bad file, so that the next Save does not make it the
// previous generation and an operator can look at it. Renaming acts on a link
// itself, never on what it points to.
func (d *Dir) putAside(dir int, file string, reason error) Bad {
	b := Bad{Path: d.full(file), Reason: reason}
	aside := file + badInfix + d.now().UTC().Format("20060102T150405.000000000Z")
	if err := unix.Renameat2(dir, file, dir, aside, unix.RENAME_NOREPLACE); err == nil {
		b.Aside = d.full(aside)
	}
	return b
}
