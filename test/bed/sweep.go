package bed

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// home holds one entry a bed: a directory, or a symbolic link to one. It is
// short because a unix socket's path has 107 bytes.
const home = "/tmp/nab"

func cgroupName(id string) string { return "nodeagent-bed-" + id }

// sliceName is the cgroup below which systemd puts what a daemon with cgroupName as
// its root asks it for.
func sliceName(id string) string { return strings.ReplaceAll(cgroupName(id), "-", "_") + ".slice" }

// cgroupNames are the cgroups of a bed, of which the slice is there only where a
// daemon has had systemd make it.
func cgroupNames(id string) []string { return []string{cgroupName(id), sliceName(id)} }

// owner is how a bed names the process that it belongs to: the pid alone would
// be believed again after it was given to another process.
func owner(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// Field 22 is the start time; the name in field 2 may hold spaces.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 20 {
		return "", fmt.Errorf("parse /proc/%d/stat", pid)
	}
	return strconv.Itoa(pid) + " " + f[19], nil
}

// sweepDead removes every bed whose owner has died.
func sweepDead() error {
	entries, err := os.ReadDir(home)
	if err != nil {
		return ignoreNotExist(err, home)
	}
	var all error
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(home, e.Name(), "owner"))
		if err != nil {
			continue // a lock file, or a bed just being made
		}
		pid, _, _ := strings.Cut(string(b), " ")
		n, err := strconv.Atoi(pid)
		if err != nil {
			continue
		}
		if now, err := owner(n); err != nil || now != string(b) {
			all = errors.Join(all, Sweep(e.Name()))
		}
	}
	return all
}

// Sweep removes everything of bed id: its processes, namespaces, mounts, cgroups
// and files. It may be called again, and by several processes at once.
func Sweep(id string) error {
	if id == "" || strings.ContainsAny(id, "/.") {
		return fmt.Errorf("sweep bed %q: not a bed's name", id)
	}
	lockFile := filepath.Join(home, id+".lock")
	unlock, err := lock(lockFile)
	if err != nil {
		return err
	}
	defer unlock()
	link := filepath.Join(home, id)
	dir, err := filepath.EvalSymlinks(link)
	if err != nil {
		os.Remove(lockFile)
		return ignoreNotExist(err, link)
	}
	for _, name := range cgroupNames(id) {
		if err := killCgroup(name, 10*time.Second); err != nil {
			return err
		}
	}
	pins := netnsPins(dir)
	if err := unmountBelow(dir); err != nil {
		return err
	}
	for _, p := range pins {
		_ = unix.Unmount(p, unix.MNT_DETACH)
		if err := ignoreNotExist(os.Remove(p), p); err != nil {
			return err
		}
	}
	if err := removeRuncState(id); err != nil {
		return err
	}
	if err := stopSlice(sliceName(id)); err != nil {
		return err
	}
	for _, name := range cgroupNames(id) {
		if err := removeCgroup(name, 10*time.Second); err != nil {
			return err
		}
	}
	if m := mountedBelow(dir); m != "" {
		return fmt.Errorf("remove %s: %s is still mounted", dir, m)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if link != dir {
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Remove(lockFile)
}

var pin = regexp.MustCompile(`/(?:var/)?run/netns/cni-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// netnsPins finds the pinned network namespaces that the bed's containerd has
// ever known, in the bytes of its database: pins lie in the host's /run/netns
// beside everybody else's, and containerd may be dead.
func netnsPins(dir string) []string {
	b, err := os.ReadFile(filepath.Join(dir, "root", "io.containerd.metadata.v1.bolt", "meta.db"))
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(pinsIn(b), func(p string) bool {
		_, err := os.Lstat(p)
		return err != nil
	})
}

// pinsIn finds the pins that the bytes tell of. In the database a name is followed
// by the next one without anything between, so its form has to tell where it ends.
func pinsIn(b []byte) []string {
	var pins []string
	for _, m := range pin.FindAll(b, -1) {
		pins = append(pins, string(m))
	}
	slices.Sort(pins)
	return slices.Compact(pins)
}

// removeRuncState removes what runc remembers of containers below the bed's
// cgroup: its state lies in one directory for the whole host.
func removeRuncState(id string) error {
	states, err := filepath.Glob("/run/containerd/runc/*/*/state.json")
	if err != nil {
		return err
	}
	for _, s := range states {
		b, err := os.ReadFile(s)
		ours := func(name string) bool { return bytes.Contains(b, []byte("/"+name+"/")) }
		if err != nil || !slices.ContainsFunc(cgroupNames(id), ours) {
			continue
		}
		if err := os.RemoveAll(filepath.Dir(s)); err != nil {
			return err
		}
	}
	return nil
}
