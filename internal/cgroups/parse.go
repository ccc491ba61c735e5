package cgroups

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// parsePIDs parses cgroup.procs: one pid a line; 0 is a process of a pid
// namespace that this one does not see.
func parsePIDs(b []byte) ([]int, error) {
	var out []int
	for line := range bytes.Lines(b) {
		pid, err := strconv.ParseUint(string(bytes.TrimRight(line, "\n")), 10, 31)
		if err != nil {
			return nil, fmt.Errorf("pid %q: %w", line, err)
		}
		out = append(out, int(pid))
	}
	return out, nil
}

// parseFlatKeyed parses a flat keyed file: "key value" a line, as cpu.stat,
// memory.events or v1's memory.oom_control.
func parseFlatKeyed(b []byte) (map[string]uint64, error) {
	out := map[string]uint64{}
	for line := range bytes.Lines(b) {
		key, value, ok := strings.Cut(strings.TrimRight(string(line), "\n"), " ")
		if !ok || key == "" {
			return nil, fmt.Errorf("line %q is not a key and a value", line)
		}
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("value of %q: %w", key, err)
		}
		out[key] = n
	}
	return out, nil
}

// parseLimit parses a single value; nil is no limit: "max" of v2, -1, and
// the largest count of pages.
func parseLimit(b []byte) (*uint64, error) {
	s := strings.TrimSpace(string(b))
	if s == "max" || s == "-1" {
		return nil, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("limit %q: %w", s, err)
	}
	if n >= endless {
		return nil, nil
	}
	return &n, nil
}

// parseCPUMax parses v2's cpu.max, "quota period" in microseconds; a nil quota
// is no limit.
func parseCPUMax(b []byte) (quota *uint64, period uint64, err error) {
	q, p, ok := strings.Cut(strings.TrimSpace(string(b)), " ")
	if !ok {
		return nil, 0, fmt.Errorf("cpu.max %q has no period", b)
	}
	if quota, err = parseLimit([]byte(q)); err != nil {
		return nil, 0, err
	}
	if period, err = strconv.ParseUint(p, 10, 64); err != nil {
		return nil, 0, fmt.Errorf("period of cpu.max: %w", err)
	}
	return quota, period, nil
}

// parsePageSize turns a directory name of /sys/kernel/mm/hugepages into the
// size as hugetlb's files name it: hugepages-2048kB is 2MB.
func parsePageSize(name string) (string, bool) {
	kb, ok := strings.CutPrefix(name, "hugepages-")
	if !ok {
		return "", false
	}
	if kb, ok = strings.CutSuffix(kb, "kB"); !ok {
		return "", false
	}
	n, err := strconv.ParseUint(kb, 10, 43)
	switch {
	case err != nil || n == 0:
		return "", false
	case n >= 1<<20:
		return strconv.FormatUint(n>>20, 10) + "GB", true
	case n >= 1<<10:
		return strconv.FormatUint(n>>10, 10) + "MB", true
	}
	return strconv.FormatUint(n, 10) + "KB", true
}
