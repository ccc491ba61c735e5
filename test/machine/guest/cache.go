package guest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/test/bed"
)

// cache is where disks and snapshots stay between runs.
func cache() string { return filepath.Join(bed.CacheDir(), "machine") }

// entry returns the path of a cached thing that parts describe, whether it is
// there, and what releases the lock under which the caller makes it: a directory
// that is renamed into place whole.
func entry(name string, parts ...any) (path string, made bool, unlock func(), err error) {
	sum := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(sum, "%q\n", p)
	}
	path = filepath.Join(cache(), name+"-"+hex.EncodeToString(sum.Sum(nil))[:12])
	if err := os.MkdirAll(cache(), 0o755); err != nil {
		return "", false, nil, err
	}
	f, err := flock(path+".lock", unix.LOCK_EX)
	if err != nil {
		return "", false, nil, err
	}
	now := time.Now()
	made = os.Chtimes(path, now, now) == nil
	return path, made, func() { f.Close() }, nil
}

// NewRun makes the directory of a run and what all of its guests share, and returns
// what removes them. This process and those that it starts find it by their
// environment. If the run dies, the next guest that starts removes it.
func NewRun(ctx context.Context, arch string) (dir string, remove func() error, err error) {
	dropOld()
	d, err := newDirectory()
	if err != nil {
		return "", nil, err
	}
	err = os.Setenv(runDir, d.path)
	if err == nil {
		_, err = payload(ctx, arch, d.path)
	}
	if err != nil {
		return "", nil, errors.Join(err, d.remove())
	}
	return d.path, d.remove, nil
}

// runDir is what a run's tests share; it is unset where there is no runner.
const runDir = "NODEAGENT_MACHINE_DIR"

// shared returns a directory that is made once for all tests of a run. Where there
// is no run, made is false, and every caller makes its own.
func shared(name string, fill func(dir string) error) (path string, made bool, err error) {
	home := os.Getenv(runDir)
	if home == "" {
		return "", false, nil
	}
	path = filepath.Join(home, name)
	lock, err := flock(path+".lock", unix.LOCK_EX)
	if err != nil {
		return "", false, err
	}
	defer lock.Close()
	if _, err := os.Stat(path); err == nil {
		return path, true, nil
	}
	tmp := path + ".making"
	if err := errors.Join(os.RemoveAll(tmp), os.Mkdir(tmp, 0o755)); err != nil {
		return "", false, err
	}
	if err := fill(tmp); err != nil {
		return "", false, errors.Join(err, os.RemoveAll(tmp))
	}
	return path, true, os.Rename(tmp, path)
}

// dropOld removes what nobody used for a fortnight.
func dropOld() {
	entries, _ := os.ReadDir(cache())
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && e.IsDir() && e.Name() != "guests" && time.Since(info.ModTime()) > 14*24*time.Hour {
			_ = os.RemoveAll(filepath.Join(cache(), e.Name()))
		}
	}
}

func flock(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}

// directory is a guest's own. Its lock is held for as long as its process lives,
// so that everybody can tell the directory of a living guest from a dead one's.
type directory struct {
	path string
	lock *os.File
}

// newDirectory makes one, after removing those whose owners have died.
func newDirectory() (*directory, error) {
	home := filepath.Join(cache(), "guests")
	if err := os.MkdirAll(home, 0o755); err != nil {
		return nil, err
	}
	sweep(home)
	d := &directory{path: filepath.Join(home, strings.ToLower(rand.Text()[:8]))}
	var err error
	if d.lock, err = flock(d.path+".lock", unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, err
	}
	if err := os.Mkdir(d.path, 0o700); err != nil {
		return nil, errors.Join(err, d.remove())
	}
	return d, nil
}

func sweep(home string) {
	entries, _ := os.ReadDir(home)
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".lock")
		if !ok {
			continue
		}
		d := directory{path: filepath.Join(home, name)}
		var err error
		if d.lock, err = flock(d.path+".lock", unix.LOCK_EX|unix.LOCK_NB); err == nil {
			_ = d.remove()
		}
	}
}

func (d *directory) remove() error {
	err := os.RemoveAll(d.path)
	if rm := os.Remove(d.path + ".lock"); rm != nil && !errors.Is(rm, os.ErrNotExist) {
		err = errors.Join(err, rm)
	}
	if d.lock != nil {
		d.lock.Close()
	}
	return err
}

// overlay makes a qcow2 file that holds the changes to backing.
func overlay(ctx context.Context, path string, backing drive) error {
	_, err := output(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", backing.format, "-b", backing.path, path)
	return err
}

func sparse(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// output runs a host's program.
func output(ctx context.Context, argv ...string) (string, error) {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("run %s: %w\n%s", strings.Join(argv, " "), err, tail(string(out), 20))
	}
	return string(out), nil
}
