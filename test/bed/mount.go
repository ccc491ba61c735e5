package bed

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount is one line of a mountinfo file (proc(5)).
type Mount struct {
	Point  string // where
	Root   string // what part of the file system; net:[…] for a namespace
	Type   string
	Source string
}

// mountinfo reads the mounts of a process ("self" or a pid), oldest first.
func mountinfo(pid string) ([]Mount, error) {
	f, err := os.Open(filepath.Join("/proc", pid, "mountinfo"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var mounts []Mount
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		head, tail, ok := strings.Cut(s.Text(), " - ")
		a, b := strings.Fields(head), strings.Fields(tail)
		if !ok || len(a) < 5 || len(b) < 2 {
			return nil, fmt.Errorf("parse mountinfo line %q", s.Text())
		}
		mounts = append(mounts, Mount{Point: unescape(a[4]), Root: unescape(a[3]), Type: b[0], Source: unescape(b[1])})
	}
	return mounts, s.Err()
}

// unescape undoes the kernel's \040 notation.
func unescape(s string) string {
	for _, r := range []struct{ from, to string }{{`\040`, " "}, {`\011`, "\t"}, {`\012`, "\n"}, {`\134`, `\`}} {
		s = strings.ReplaceAll(s, r.from, r.to)
	}
	return s
}

// unmountBelow detaches every mount at or below dir, newest first.
func unmountBelow(dir string) error { return unmountSeen("self", dir) }

// unmountSeen is unmountBelow in the mount namespace of who, as /proc names it.
func unmountSeen(who, dir string) error {
	mounts, err := mountinfo(who)
	if err != nil {
		return err
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		p := mounts[i].Point
		if p != dir && !strings.HasPrefix(p, dir+"/") {
			continue
		}
		if err := unix.Unmount(p, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
			return fmt.Errorf("unmount %s: %w", p, err)
		}
	}
	return nil
}

// mountedBelow tells the first mount at or below dir, or "".
func mountedBelow(dir string) string {
	mounts, err := mountinfo("self")
	if err != nil {
		return "(mountinfo: " + err.Error() + ")"
	}
	for _, m := range mounts {
		if m.Point == dir || strings.HasPrefix(m.Point, dir+"/") {
			return m.Point
		}
	}
	return ""
}

// private are the directories of the host that a private bed sees empty.
var private = []string{"/run/netns", "/run/containerd", "/etc/cni/net.d"}

// newMountNS gives the calling thread a mount namespace of its own, to which and
// from which no mount spreads.
func newMountNS() error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts private: %w", err)
	}
	for _, dir := range private {
		if _, err := os.Stat(dir); err != nil {
			if !strings.HasPrefix(dir, "/run/") {
				continue // not there, so empty enough
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
		// What others have mounted there would be hidden, but still be listed.
		if err := unmountSeen("thread-self", dir); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("hide %s: %w", dir, err)
		}
	}
	return nil
}
