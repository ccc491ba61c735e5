package podnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// journal keeps the records of the bridge in a directory below RunDir, one file
// a sandbox, replaced by rename and never synced: a kill of the daemon loses
// nothing of the page cache, and a reboot voids every allocation anyway, since
// it takes the interfaces with it. The boot id tells a reboot where RunDir is
// on disk.
type journal struct{ dir string }

const (
	bootFile   = ".boot"
	lastFile   = ".last"
	tempPrefix = ".tmp-"
)

// load returns the records of this boot. What it cannot use it returns as
// litter and removes: the interface itself still says what it was.
func (j *journal) load(boot string) (recs []*record, litter []error, err error) {
	if err := os.MkdirAll(j.dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make journal of pod networks: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(j.dir, &st); err != nil {
		return nil, nil, fmt.Errorf("stat journal of pod networks: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return nil, nil, fmt.Errorf("use journal of pod networks %s: not a directory that only we can write", j.dir)
	}
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("list journal of pod networks: %w", err)
	}
	stale := true
	if b, err := j.read(bootFile); err == nil {
		stale = string(b) != boot
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case e.IsDir():
			litter = append(litter, fmt.Errorf("remove %s: a directory in place of a record", filepath.Join(j.dir, name)))
			_ = os.RemoveAll(filepath.Join(j.dir, name))
		case stale || strings.HasPrefix(name, tempPrefix):
			_ = os.Remove(filepath.Join(j.dir, name))
		case strings.HasPrefix(name, "."):
		default:
			r, err := j.one(name)
			if err != nil {
				litter = append(litter, fmt.Errorf("drop record %s: %w", filepath.Join(j.dir, name), err))
				_ = os.Remove(filepath.Join(j.dir, name))
				continue
			}
			recs = append(recs, r)
		}
	}
	if stale {
		err = j.write(bootFile, []byte(boot))
	}
	return recs, litter, err
}

func (j *journal) one(name string) (*record, error) {
	b, err := j.read(name)
	if err != nil {
		return nil, err
	}
	return decodeRecord(name, b)
}

func (j *journal) read(name string) ([]byte, error) {
	f, err := os.OpenFile(filepath.Join(j.dir, name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	return io.ReadAll(io.LimitReader(f, maxRecord))
}

// put writes a record.
func (j *journal) put(r *record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode record of pod network: %w", err)
	}
	return j.write(r.Sandbox, b)
}

// drop removes a record; one that is gone is no error.
func (j *journal) drop(sandbox string) error {
	err := os.Remove(filepath.Join(j.dir, sandbox))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove record of pod network: %w", err)
	}
	return nil
}

// last and setLast keep the addresses given last, so that a restart does not
// give a just freed one at once. It is a hint: losing it harms nobody.
func (j *journal) last() []netip.Addr {
	b, _ := j.read(lastFile)
	var out []netip.Addr
	_ = json.Unmarshal(b, &out)
	return out
}

func (j *journal) setLast(addrs []netip.Addr) {
	if b, err := json.Marshal(addrs); err == nil {
		_ = j.write(lastFile, b)
	}
}

func (j *journal) write(name string, content []byte) error {
	f, err := os.CreateTemp(j.dir, tempPrefix)
	if err != nil {
		return fmt.Errorf("write record of pod network: %w", err)
	}
	_, err = f.Write(content)
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(j.dir, name))
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write record of pod network: %w", err)
	}
	return nil
}

// bootID identifies this run of the kernel.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
