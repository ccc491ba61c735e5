package diag

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nodeagent/internal/openat2"
)

// Mount is a mount as a container sees it (a line of /proc/PID/mountinfo).
type Mount struct {
	Destination string `json:"destination"`
	Type        string `json:"type"`
	Source      string `json:"source"`
	Root        string `json:"root"` // the directory of the file system that is mounted
	ReadOnly    bool   `json:"readOnly"`
	Options     string `json:"options"`
	Propagation string `json:"propagation,omitempty"`

	id uint64
}

// mountsMax bounds what is read: a privileged pod can mount without end.
const mountsMax = 4 << 20

func readMounts(proc string, pid int) ([]Mount, error) {
	f, err := os.Open(filepath.Join(proc, strconv.Itoa(pid), "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("read the mounts of process %d: %w", pid, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, mountsMax))
	if err != nil {
		return nil, fmt.Errorf("read the mounts of process %d: %w", pid, err)
	}
	if len(text) == mountsMax { // the rest is not shown
		text = text[:bytes.LastIndexByte(text, '\n')+1]
	}
	return parseMounts(text)
}

// parseMounts reads mountinfo (proc_pid_mountinfo(5)): id, parent, device, root,
// destination, options, optional fields, a dash, type, source, super options.
func parseMounts(text []byte) ([]Mount, error) {
	all := []Mount{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, mountsMax+1)
	for lines.Scan() {
		f := strings.Split(lines.Text(), " ")
		dash := -1
		for i := 6; i < len(f); i++ {
			if f[i] == "-" {
				dash = i
				break
			}
		}
		if dash < 0 || len(f) < dash+4 {
			return nil, fmt.Errorf("read mountinfo: a line has %d fields", len(f))
		}
		id, err := strconv.ParseUint(f[0], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("read mountinfo: %w", err)
		}
		m := Mount{
			id: id, Root: unoctal(f[3]), Destination: unoctal(f[4]), Options: f[5], Type: f[dash+1], Source: unoctal(f[dash+2]),
			Propagation: strings.Join(f[6:dash], " "),
		}
		m.ReadOnly = hasOption(f[5], "ro") || hasOption(f[dash+3], "ro")
		all = append(all, m)
	}
	return all, lines.Err()
}

func hasOption(list, option string) bool {
	for o := range strings.SplitSeq(list, ",") {
		if o == option {
			return true
		}
	}
	return false
}

// unoctal undoes the kernel's \040 for a space and the like.
func unoctal(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountAt finds the mount that a path of the container leads to, through the
// container's own links; nil where the path is no mount's root. The path is
// opened with O_PATH only, so no device or FIFO of the pod is touched.
func mountAt(proc string, pid int, path string, all []Mount) (*Mount, error) {
	root, err := unix.Open(filepath.Join(proc, strconv.Itoa(pid), "root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	fd, err := openat2.Open(root, path, unix.O_PATH, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st); err != nil {
		return nil, err
	}
	if st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return nil, nil
	}
	for i := range all {
		if all[i].id == st.Mnt_id {
			return &all[i], nil
		}
	}
	return nil, nil
}
