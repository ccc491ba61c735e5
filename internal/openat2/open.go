// Package openat2 opens what a path below an open directory leads to, within the bounds
// that the caller sets by the kernel's RESOLVE_ flags: openat2(2), from Linux 5.6 on. It
// owns what is awkward about that call, and decides nothing. Any goroutine may call it.
package openat2

import "golang.org/x/sys/unix"

// maxTries bounds how often a look-up is begun anew. Beside a loop of renames on each of
// two cores a quarter of all look-ups through ".." are disturbed, at most 24 in a row.
const maxTries = 1000

// Open opens path, which begins at the directory dir, with O_CLOEXEC and the flags of
// open(2), bounded by the RESOLVE_ flags of resolve.
//
// A look-up through "..", of the path or of a link on the way, is given up by the kernel
// with EAGAIN when anybody renames or mounts anything meanwhile, wherever on the node that
// is. It is tried again, as it is after EINTR; EAGAIN is left where that goes on.
// The error is the bare errno.
func Open(dir int, path string, flags, resolve uint64) (fd int, err error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve}
	for range maxTries {
		fd, err = unix.Openat2(dir, path, &how)
		if err != unix.EAGAIN && err != unix.EINTR {
			break
		}
	}
	return fd, err
}
