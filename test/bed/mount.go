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
func unmountBelow(dir string) error {
	mounts, err := mountinfo("self")
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
