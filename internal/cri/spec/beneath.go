package spec

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"nodeagent/internal/openat2"
)

// readBeneath reads the regular file name below dir, at most limit bytes. how
// is the RESOLVE_ flag that keeps the look-up inside dir. The file is looked at
// through an O_PATH descriptor first: opening what a hostile tree put there, a
// device or a FIFO, could act or hang.
func readBeneath(dir, name string, how uint64, limit int64) ([]byte, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(root)
	fd, err := openat2.Open(root, name, unix.O_PATH, how|unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, refuse("%s is not a regular file", name)
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, refuse("%s is larger than %d bytes", name, limit)
	}
	return b, nil
}
