package logs

import (
	"bytes"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

const (
	checkEvery = time.Second            // how long a removed log directory goes unnoticed
	restAfter  = 100 * time.Millisecond // how long everything is dropped after a failure
)

// flush writes the pending records. On a full disk the oldest rotated file
// makes room; where nothing helps, the records are counted and dropped.
func (w *Writer) flush() {
	all := w.out
	w.out = w.out[:0]
	if len(all) == 0 {
		return
	}
	if w.now.Before(w.retryAt) {
		w.stats.DroppedBytes += uint64(len(all))
		w.stats.DroppedLines += uint64(bytes.Count(all, newline))
		return
	}
	if w.now.Sub(w.checked) >= checkEvery || w.now.Before(w.checked) {
		w.check()
	}
	if err := w.openOrDrop(); err != nil {
		w.fail(all, err)
		return
	}
	rest, err := w.writeAll(all)
	w.stats.Lines += uint64(bytes.Count(all[:len(all)-len(rest)], newline))
	if err != nil {
		w.fail(rest, err)
		return
	}
	w.stats.LastError = ""
}

// fail drops b and lets the next attempt wait a little, so that a flood into a
// full disk does not become a flood of failing calls.
func (w *Writer) fail(b []byte, err error) {
	w.lose(b, err)
	w.retryAt = w.now.Add(restAfter)
	if !noSpace(err) {
		_ = w.file.close() // perhaps the directory is another one now
	}
}

func (w *Writer) openOrDrop() error {
	for {
		err := w.open()
		if err == nil || !noSpace(err) || !w.dropOldest() {
			return err
		}
	}
}

// writeAll returns what it could not write, beginning at a record.
func (w *Writer) writeAll(all []byte) (rest []byte, err error) {
	if w.file.torn {
		n, err := write(w.file.fd, newline)
		w.file.size += int64(n)
		if err != nil && !(noSpace(err) && w.dropOldest()) {
			return all, err
		}
		w.file.torn = false
	}
	rest = all
	for len(rest) > 0 {
		n, err := write(w.file.fd, rest)
		w.file.size += int64(n)
		rest = rest[n:]
		if err == nil {
			continue
		}
		rest = w.mend(all, rest)
		if !noSpace(err) || !w.dropOldest() {
			return rest, err
		}
	}
	return nil, nil
}

// mend takes a half-written record back out of the file, which needs no space.
func (w *Writer) mend(all, rest []byte) []byte {
	written := all[:len(all)-len(rest)]
	torn := len(written) - (bytes.LastIndexByte(written, '\n') + 1)
	if torn == 0 {
		return rest
	}
	if err := unix.Ftruncate(w.file.fd, w.file.size-int64(torn)); err != nil {
		w.file.torn = true
	} else {
		w.file.size -= int64(torn)
	}
	return all[len(written)-torn:]
}

func write(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Write(fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, err
		case n == 0 && len(b) > 0:
			return 0, unix.ENOSPC
		}
		return n, nil
	}
}

func noSpace(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
