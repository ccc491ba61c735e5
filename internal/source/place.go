package source

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// maxManifests bounds the names that are taken from one directory.
const maxManifests = 16 << 10

// place is the directory that is read, while it is there.
type place struct {
	dir      string
	only     string // the one file of it that is wanted, "" for all
	dev, ino uint64
}

// findPlace says which directory the configured path means now: itself, or the
// one around it where the path is a file. A path that is not there is a file to
// come if its name says so or if it was a file before.
func (m *Manifests) findPlace() (place, error) {
	p := place{dir: m.cfg.Path}
	fi, err := os.Stat(m.cfg.Path)
	if err == nil && !fi.IsDir() && !fi.Mode().IsRegular() {
		return place{}, fmt.Errorf("read manifest directory %s: it is neither a directory nor a regular file", m.cfg.Path)
	}
	asFile := err == nil && !fi.IsDir() || errors.Is(err, os.ErrNotExist) && (m.asFile || isManifest(m.cfg.Path))
	if asFile {
		p.dir, p.only = filepath.Dir(m.cfg.Path), filepath.Base(m.cfg.Path)
		fi, err = os.Stat(p.dir)
	}
	if err != nil {
		return place{}, fmt.Errorf("read manifest directory %s: %w", p.dir, cause(err))
	}
	m.asFile = asFile
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || !fi.IsDir() {
		return place{}, fmt.Errorf("read manifest directory %s: not a directory", p.dir)
	}
	p.dev, p.ino = uint64(st.Dev), st.Ino
	return p, nil
}

// way is the nearest directory that exists above dir, and the name in it that
// leads to dir.
func way(dir string) (parent, name string) {
	for dir != "/" && dir != "." {
		parent, name = filepath.Dir(dir), filepath.Base(dir)
		if fi, err := os.Stat(parent); err == nil && fi.IsDir() {
			return parent, name
		}
		dir = parent
	}
	return "", ""
}

// list returns the names in the directory that may be of interest. complete is
// false where there are more, or where the directory could not be read to its
// end: then a name that is missing means nothing.
func (p place) list() (names []string, complete bool, err error) {
	if p.only != "" {
		return []string{p.only}, true, nil
	}
	d, err := os.Open(p.dir)
	if err != nil {
		return nil, false, fmt.Errorf("read manifest directory %s: %w", p.dir, cause(err))
	}
	defer d.Close()
	for {
		entries, err := d.ReadDir(512)
		for _, e := range entries {
			if kindOf(e.Name()) != kindSilent {
				names = append(names, e.Name())
			}
		}
		switch {
		case len(names) > maxManifests:
			return names[:maxManifests], false, fmt.Errorf("read manifest directory %s: it has more than %d files", p.dir, maxManifests)
		case err == io.EOF:
			return names, true, nil
		case err != nil:
			return names, false, fmt.Errorf("read manifest directory %s: %w", p.dir, cause(err))
		}
	}
}
