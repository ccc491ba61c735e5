package cert

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// keyMode is of every file that holds a private key or names one.
	keyMode = 0o600
	// maxFile bounds what is read of a file: a bundle of some hundred
	// certificates still fits.
	maxFile = 4 << 20
	// tempMark is in the names of files that were not finished.
	tempMark = ".nodeagent-tmp-"
)

// disk writes files. fault, of tests, is asked before each step that changes
// something; from its first error on the daemon counts as killed.
type disk struct{ fault func() error }

func (d disk) at() error {
	if d.fault == nil {
		return nil
	}
	return d.fault()
}

// replace makes content what is at path, in one step that survives a power cut:
// a reader sees the old file or the new one. The formats are kubelet's, so there
// is no room for the header of internal/durable; a file that is cut off all the
// same does not parse.
func (d disk) replace(path string, content []byte, mode os.FileMode) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make directory of %s: %w", path, err)
	}
	temp := tempName(path)
	err := d.at()
	if err == nil {
		err = writeSynced(temp, content, mode)
	}
	if err == nil {
		err = d.rename(temp, path)
	}
	if err != nil {
		d.discard(temp)
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// relink makes path a link to target, in one step that survives a power cut.
func (d disk) relink(path, target string) error {
	temp := tempName(path)
	err := d.at()
	if err == nil {
		err = os.Symlink(target, temp)
	}
	if err == nil {
		err = d.rename(temp, path)
	}
	if err != nil {
		d.discard(temp)
		return fmt.Errorf("link %s to %s: %w", path, target, err)
	}
	return nil
}

// discard is best effort: sweep removes what stays.
func (d disk) discard(temp string) {
	if d.at() == nil {
		_ = os.Remove(temp)
	}
}

func tempName(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+tempMark+rand.Text())
}

func (d disk) rename(temp, path string) error {
	if err := d.at(); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	if err := d.at(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func writeSynced(path string, content []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync() // late ENOSPC shows up here only
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// remove deletes the file at path and makes that durable. One that is not there
// is no error.
func (d disk) remove(path string) error {
	if err := d.at(); err != nil {
		return err
	}
	err := os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return err
}

// sweep removes what a killed daemon left half made of files whose names begin
// so. It holds private keys, so it does not stay.
func sweep(dir, name string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // nothing is there to sweep, or the next write says why not
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "."+name) && strings.Contains(e.Name(), tempMark) {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// read returns the content of a regular file, and never hangs on a pipe.
func read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: not a regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("read %s: larger than %d bytes", path, maxFile)
	}
	return b, err
}
