package cgroups

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nodeagent/internal/pod"
)

// setting is what one control file must say.
type setting struct {
	controller string
	file       string
	value      string // what is written, and read back after canonical
	fresh      string // what the file says in a cgroup just made; "" if not known
	kind       kind
}

// kind says how to compare and how to write a setting.
type kind int

const (
	plain    kind = iota
	paged         // the kernel rounds down to pages, and has its own "no limit"
	v1period      // cpu.cfs_period_us: not while a quota is in force
)

// noLimit stands for "no limit" in a setting of bytes.
const noLimit = "max"

// endless is the number of bytes from which on a limit is none. The kernel
// counts pages, and shows its largest count, LONG_MAX, in whole pages of the
// size in question.
const endless = 1 << 62

// settingsOf lists what the resources mean for this machine's cgroups, in the
// order in which they must be written. Controllers that the machine lacks are
// left out.
func (t *Tree) settingsOf(r pod.Resources) []setting {
	var all []setting
	if t.systemd != nil {
		r.CPUQuota = wholePercents(r.CPUQuota, r.CPUPeriod)
	}
	if t.V2() {
		all = settingsV2(r)
	} else {
		all = settingsV1(r)
	}
	kept := all[:0]
	for _, s := range all {
		if t.hasSetting(s) {
			kept = append(kept, s)
		}
	}
	return kept
}

func (t *Tree) hasSetting(s setting) bool {
	if !t.V2() {
		return t.dir(s.controller, "/") != ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.enabled {
		if c == s.controller {
			return true
		}
	}
	return false
}

func settingsV1(r pod.Resources) []setting {
	period, quota := r.CPUPeriod, int64(-1)
	if period == 0 {
		period = pod.DefaultCPUPeriod
	}
	if r.CPUQuota != nil {
		quota = *r.CPUQuota
	}
	s := []setting{
		{"cpu", "cpu.shares", strconv.FormatUint(r.CPUShares, 10), "1024", plain},
		{"cpu", "cpu.cfs_period_us", strconv.FormatUint(period, 10), "100000", v1period},
		{"cpu", "cpu.cfs_quota_us", strconv.FormatInt(quota, 10), "-1", plain},
		{"memory", "memory.limit_in_bytes", limitBytes(r.Memory), noLimit, paged},
		{"pids", "pids.max", limitPids(r.Pids), noLimit, plain},
	}
	for _, size := range r.PageSizes() {
		s = append(s, setting{"hugetlb", "hugetlb." + size + ".limit_in_bytes",
			strconv.FormatUint(r.HugepageLimits[size], 10), noLimit, paged})
	}
	return s
}

func settingsV2(r pod.Resources) []setting {
	period, quota := r.CPUPeriod, "max"
	if period == 0 {
		period = pod.DefaultCPUPeriod
	}
	if r.CPUQuota != nil {
		quota = strconv.FormatInt(*r.CPUQuota, 10)
	}
	s := []setting{
		{"cpu", "cpu.weight", strconv.FormatUint(r.CPUWeight, 10), "100", plain},
		{"cpu", "cpu.max", quota + " " + strconv.FormatUint(period, 10), "max 100000", plain},
		{"memory", "memory.max", limitBytes(r.Memory), noLimit, paged},
		{"pids", "pids.max", limitPids(r.Pids), noLimit, plain},
	}
	for _, size := range r.PageSizes() {
		s = append(s, setting{"hugetlb", "hugetlb." + size + ".max",
			strconv.FormatUint(r.HugepageLimits[size], 10), noLimit, paged})
	}
	return s
}

func limitBytes(limit *int64) string {
	if limit == nil || *limit >= endless {
		return noLimit
	}
	page := int64(os.Getpagesize())
	return strconv.FormatInt(*limit/page*page, 10)
}

func limitPids(limit int64) string {
	if limit <= 0 {
		return noLimit
	}
	return strconv.FormatInt(limit, 10)
}

// canonical turns what a file says into the form of setting.value.
func (s setting) canonical(read string) string {
	read = strings.TrimSpace(read)
	if s.kind != paged {
		return read
	}
	if n, err := strconv.ParseUint(read, 10, 64); err == nil && n >= endless {
		return noLimit
	}
	return read
}

// written is the value as the file takes it.
func (s setting) written(v2 bool) string {
	if s.value == noLimit && s.kind == paged && !v2 {
		return "-1"
	}
	return s.value
}

// Change is one control file that did not say what it should.
type Change struct {
	Cgroup string `json:"cgroup"`
	File   string `json:"file"`
	Want   string `json:"want"`
	Got    string `json:"got"`
	Err    error  `json:"-"` // why it could not be put right; nil if it was
}

// applyFresh writes the settings of a cgroup that was just made: only those
// that a new cgroup does not have anyway, without reading first.
func (t *Tree) applyFresh(cgroup string, settings []setting) error {
	for _, s := range settings {
		if s.value == s.fresh {
			continue
		}
		if err := t.kernel.Write(t.file(cgroup, s), s.written(t.V2())); err != nil {
			return limitError(cgroup, err)
		}
	}
	return nil
}

// apply makes a cgroup's files say what the settings say. It returns the files
// that said something else.
func (t *Tree) apply(cgroup string, settings []setting) ([]Change, error) {
	var changes []Change
	var errs []error
	for _, s := range settings {
		read, err := readControl(t.file(cgroup, s))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		got := s.canonical(read)
		if got == s.value {
			continue
		}
		err = t.put(cgroup, s)
		if err != nil {
			errs = append(errs, err)
		}
		changes = append(changes, Change{Cgroup: cgroup, File: s.file, Want: s.value, Got: got, Err: err})
	}
	if len(errs) > 0 {
		return changes, limitError(cgroup, errors.Join(errs...))
	}
	return changes, nil
}

// put writes one setting of a cgroup in use.
func (t *Tree) put(cgroup string, s setting) error {
	file := t.file(cgroup, s)
	switch {
	case s.kind == v1period:
		// The kernel checks the pair of period and quota at each write; the
		// quota, which is written next, is put back by its own setting.
		if err := t.kernel.Write(filepath.Join(filepath.Dir(file), "cpu.cfs_quota_us"), "-1"); err != nil {
			return err
		}
	case s.file == "memory.max" && s.value != noLimit:
		// v2 kills where v1 says EBUSY: below its usage a limit is not lowered.
		if err := belowUsage(filepath.Join(filepath.Dir(file), "memory.current"), s.value); err != nil {
			return err
		}
	}
	return t.kernel.Write(file, s.written(t.V2()))
}

func belowUsage(file, limit string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil // nothing is in use that could be killed
	}
	used, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return fmt.Errorf("parse %s: %w", file, err)
	}
	if want, err := strconv.ParseUint(limit, 10, 64); err == nil && used > want {
		return fmt.Errorf("lower memory.max to %s with %d bytes in use: %w", limit, used, unix.EBUSY)
	}
	return nil
}

// memoryMax reads a limit on memory; nil for none.
func memoryMax(file string) (*int64, error) {
	read, err := readControl(file)
	if err != nil {
		return nil, err
	}
	limit, err := parseLimit([]byte(read))
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", file, err)
	}
	if limit == nil {
		return nil, nil
	}
	return new(int64(*limit)), nil
}

func (t *Tree) file(cgroup string, s setting) string {
	return filepath.Join(t.dir(s.controller, cgroup), s.file)
}

func limitError(cgroup string, err error) error {
	return fmt.Errorf("set limits of cgroup %s: %w", cgroup, err)
}
