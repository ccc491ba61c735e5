package cgroups

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// describe names a process for an error: what it is and what it waits in.
func describe(proc string, pid int) string {
	b, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	s, err := parseProcStat(b)
	if err != nil {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("process %d (%q, state %s)", pid, s.comm, s.state)
}

// procStat is the part of /proc/<pid>/stat that is of use here.
type procStat struct {
	comm  string // a pod chooses it
	state string
	start uint64 // clock ticks since boot
}

// parseProcStat parses /proc/<pid>/stat. The name in brackets may hold
// brackets, blanks and newlines, so its end is the last bracket.
func parseProcStat(b []byte) (procStat, error) {
	s := string(b)
	open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || end < open {
		return procStat{}, fmt.Errorf("stat %.40q has no name", s)
	}
	fields := strings.Fields(s[end+1:])
	if len(fields) < 20 {
		return procStat{}, fmt.Errorf("stat has %d fields after the name, want 20 or more", len(fields))
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return procStat{}, fmt.Errorf("start time: %w", err)
	}
	return procStat{comm: s[open+1 : end], state: fields[0], start: start}, nil
}
