package bed

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// floodLine is the length of a line of podtool flood without its newline: a
// number of twelve digits and filler.
const floodLine = 99

// FloodLog is what CheckLog found.
type FloodLog struct {
	First   int64 // number of the oldest line that is there
	Next    int64 // number after the newest one
	Printed int64 // lines that podtool says it printed; -1: it did not end
}

// CheckLog reads the log files in dir of a container that runs podtool flood.
// The lines that are there must be whole and in one sequence without a gap: only
// the oldest may be missing.
func CheckLog(dir string) (FloodLog, error) {
	l := FloodLog{First: -1, Printed: -1}
	names, err := filepath.Glob(filepath.Join(dir, "*.log*"))
	if err != nil || len(names) == 0 {
		return l, fmt.Errorf("find the log in %s: %w", dir, errors.Join(err, os.ErrNotExist))
	}
	// N.log is the newest; rotated ones have a time stamp behind that name.
	slices.Sort(names)
	names = append(names[1:], names[0])
	for _, name := range names {
		if err := l.read(name); err != nil {
			return l, err
		}
	}
	return l, nil
}

func (l *FloodLog) read(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(make([]byte, 1<<20), 1<<20)
	for s.Scan() {
		if err := l.line(s.Text()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return s.Err()
}

// line takes "2026-01-01T00:00:00.000000000Z stdout F 000000000000....".
func (l *FloodLog) line(line string) error {
	_, rest, _ := strings.Cut(line, " ")
	text, ok := strings.CutPrefix(rest, "stdout F ")
	if !ok {
		return fmt.Errorf("not a log line: %.80q", line)
	}
	if total, ok := strings.CutPrefix(text, "end "); ok {
		n, err := strconv.ParseInt(total, 10, 64)
		l.Printed = n
		return err
	}
	n, err := strconv.ParseInt(text[:min(12, len(text))], 10, 64)
	if err != nil || len(text) != floodLine {
		return fmt.Errorf("not a line of the flood: %.80q", text)
	}
	if l.First < 0 {
		l.First, l.Next = n, n
	}
	if n != l.Next {
		return fmt.Errorf("line %d where %d should be", n, l.Next)
	}
	l.Next++
	return nil
}
