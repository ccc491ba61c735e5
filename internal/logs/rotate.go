package logs

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// rotatedLayout is kubelet's: 0.log becomes 0.log.20060102-150405.
const rotatedLayout = "20060102-150405"

// rotateIfFull makes room for a record of need bytes. The oldest file goes
// first, so that there is never one file too many.
func (w *Writer) rotateIfFull(need int) {
	if w.file.fd < 0 || w.file.size == 0 || w.file.size+int64(need) <= w.cfg.MaxSize {
		return
	}
	for len(w.rotated) > 0 && len(w.rotated) > w.cfg.MaxFiles-2 {
		if !w.dropOldest() {
			break
		}
	}
	if err := w.moveAway(); err != nil {
		// The file or its directory is gone, or the file system refuses: begin
		// anew, and where that fails too, what comes is counted as dropped.
		_ = w.file.close()
		w.stats.LastError = err.Error()
		return
	}
	w.stats.Rotations++
	_ = unix.Close(w.file.fd)
	w.file.fd, w.file.size, w.file.torn = -1, 0, false
	_ = w.openOrDrop() // a failure comes back in the flush that follows
}

// moveAway gives the current file its rotated name, or removes it where only
// one file may be kept.
func (w *Writer) moveAway() error {
	if w.cfg.MaxFiles == 1 {
		if err := unix.Unlinkat(w.file.dirFD, w.name, 0); err != nil {
			return fmt.Errorf("remove full log: %w", err)
		}
		w.stats.DroppedFiles++
		return nil
	}
	to := w.rotatedName()
	// NOREPLACE: a name that somebody planted is not ours to overwrite.
	err := unix.Renameat2(w.file.dirFD, w.name, w.file.dirFD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = unix.Renameat(w.file.dirFD, w.name, w.file.dirFD, to)
	}
	if errors.Is(err, unix.EEXIST) {
		if err = unix.Unlinkat(w.file.dirFD, to, 0); err == nil {
			err = unix.Renameat(w.file.dirFD, w.name, w.file.dirFD, to)
		}
	}
	if err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	w.rotated = append(w.rotated, to)
	return nil
}

// rotatedName returns a name that sorts after every earlier one, also within a
// second and when the clock goes back: 0.log.20060102-150405[-<n>].
func (w *Writer) rotatedName() string {
	name := w.name + "." + w.now.UTC().Format(rotatedLayout)
	if len(w.rotated) == 0 {
		return name
	}
	last := w.rotated[len(w.rotated)-1]
	if name > last && !strings.HasPrefix(last, name) {
		return name
	}
	stem, n := last, 0
	if at := len(w.name) + 1 + len(rotatedLayout); len(last) > at {
		stem = last[:at]
		_, _ = fmt.Sscanf(last[at:], "-%d", &n)
	}
	return fmt.Sprintf("%s-%09d", stem, n+1)
}

// dropOldest removes the oldest rotated file. It tells whether one is gone.
func (w *Writer) dropOldest() bool {
	if len(w.rotated) == 0 {
		return false
	}
	name := w.rotated[0]
	if w.file.dirFD < 0 {
		return false
	}
	err := unix.Unlinkat(w.file.dirFD, name, 0)
	w.rotated = w.rotated[1:]
	if err == nil {
		w.stats.DroppedFiles++
	}
	return err == nil || errors.Is(err, unix.ENOENT)
}

// rotatedNames lists the rotated files of a log, oldest first.
func rotatedNames(dirFD int, name string) []string {
	fd, err := unix.Openat(dirFD, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	all, _ := dir.Readdirnames(-1)
	rotated := slices.DeleteFunc(all, func(n string) bool { return !isRotated(n, name) })
	slices.Sort(rotated)
	return rotated
}

// isRotated tells whether n is a rotated file of the log name, ours or
// kubelet's, compressed or not.
func isRotated(n, name string) bool {
	rest, ok := strings.CutPrefix(n, name+".")
	if !ok || len(rest) < len(rotatedLayout) {
		return false
	}
	_, err := time.Parse(rotatedLayout, rest[:len(rotatedLayout)])
	tail := strings.TrimSuffix(rest[len(rotatedLayout):], ".gz")
	return err == nil && (tail == "" || tail[0] == '-')
}

func unlinkAt(dirFD int, name string) error {
	if err := unix.Unlinkat(dirFD, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}
