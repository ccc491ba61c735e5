package logs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// FileName is the log of a container's n-th run, counted from 0.
func FileName(n int) string { return strconv.Itoa(n) + ".log" }

// Instances lists the runs of a container that have a log in dir, oldest
// first; none where there is no directory.
func Instances(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list container logs: %w", err)
	}
	var runs []int
	for _, e := range entries {
		number, rest, _ := strings.Cut(e.Name(), ".")
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 || FileName(n) != number+".log" {
			continue
		}
		if rest == "log" || isRotated(e.Name(), FileName(n)) {
			runs = append(runs, n)
		}
	}
	slices.Sort(runs)
	return slices.Compact(runs), nil
}

// Remove removes the log of a container's n-th run with its rotated files.
func Remove(dir string, n int) error {
	fd, err := openDirToRead(filepath.Clean(dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove container log: %w", err)
	}
	d := os.NewFile(uintptr(fd), dir)
	defer d.Close()
	var errs []error
	for _, name := range append(rotatedNames(fd, FileName(n)), FileName(n)) {
		if err := unlinkAt(fd, name); err != nil {
			errs = append(errs, fmt.Errorf("remove container log %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
