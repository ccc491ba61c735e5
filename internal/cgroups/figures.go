package cgroups

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// What is read of every cgroup each few seconds is read with bare system calls into
// one buffer, and taken from there without a copy: the library's statistics cost ten
// times the memory, and stop at the first file that a kernel lacks.

// maxFile bounds a control file; the largest is io.stat with many devices.
const maxFile = 64 << 10

// file reads a control file, which is good until the next one is read; nil where the
// kernel has none.
func (r *reader) file(controller, name string) []byte {
	dir := r.dir(controller)
	if dir == "" {
		return nil
	}
	b, err := r.read(dir + "/" + name)
	if err != nil {
		r.miss(name, err)
		return nil
	}
	return b
}

func (r *reader) read(path string) ([]byte, error) {
	var fd int
	err := ignoringEINTR(func() (err error) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, pathError("open", path, err)
	}
	defer unix.Close(fd)
	for n := 0; n < len(r.buf); {
		var more int
		err := ignoringEINTR(func() (err error) {
			more, err = unix.Read(fd, r.buf[n:])
			return err
		})
		if err != nil {
			return nil, pathError("read", path, err)
		}
		if more == 0 {
			return r.buf[:n], nil
		}
		n += more
	}
	return nil, fmt.Errorf("read %s: it is longer than %d bytes", path, maxFile)
}

// number reads a file of one number; 0 where there is none.
func (r *reader) number(controller, name string) uint64 {
	b := r.file(controller, name)
	if b == nil {
		return 0
	}
	n, rest := digits(b)
	if len(rest) == len(b) {
		r.miss(name, fmt.Errorf("%.32q is no number", b))
	}
	return n
}

// keyed reads a file of keys and numbers, one a line.
func (r *reader) keyed(controller, name string, set func(key []byte, v uint64)) {
	r.miss(name, eachKeyed(r.file(controller, name), set))
}

// eachKeyed is parseFlatKeyed without a copy.
func eachKeyed(b []byte, set func(key []byte, v uint64)) error {
	for line := range bytes.Lines(b) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		key, value, ok := bytes.Cut(line, []byte(" "))
		v, rest := digits(value)
		if !ok || len(key) == 0 || len(value) == 0 || len(rest) > 0 {
			return fmt.Errorf("line %.64q is not a key and a value", line)
		}
		set(key, v)
	}
	return nil
}

// digits takes a number from the front of b; none is 0, one too large the largest.
func digits(b []byte) (n uint64, rest []byte) {
	i := 0
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		i++
	}
	n, err := strconv.ParseUint(string(b[:i]), 10, 64)
	if errors.Is(err, strconv.ErrSyntax) {
		n = 0
	}
	return n, b[i:]
}

// leaf tells whether a cgroup of v1 has none below it: each would be a link of its
// directory.
func leaf(dir string) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && st.Nlink == 2
}
