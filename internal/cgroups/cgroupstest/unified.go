// Package cgroupstest owns a stand-in for a kernel with cgroup v2: a directory
// whose cgroups have the control files that the kernel would give them, refuse
// what it would refuse, and change as it would. It has no real processes; a pid
// is a number in cgroup.procs.
//
// Not safe for concurrent use beside reads of the files.
package cgroupstest

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nodeagent/internal/cgroups"
)

// Unified is a kernel with all controllers on the unified hierarchy.
type Unified struct {
	Mountpoint string
	// Fail, when not nil, is asked before each change, and fails it.
	Fail func(op, path string) error
	// Writes are the writes so far, as "path value", relative to Mountpoint.
	Writes []string
}

// NewUnified returns a kernel with the controllers, mounted in a directory of
// the test.
func NewUnified(t testing.TB, controllers ...string) *Unified {
	t.Helper()
	k := &Unified{Mountpoint: t.TempDir()}
	if err := k.populate(k.Mountpoint, controllers, true); err != nil {
		t.Fatal(err)
	}
	return k
}

// files are the control files of each controller with their first values. The
// root has none of them.
func files(controller string) map[string]string {
	switch controller {
	case "cpu":
		return map[string]string{"cpu.weight": "100", "cpu.max": "max 100000"}
	case "cpuset":
		return map[string]string{"cpuset.cpus": "", "cpuset.cpus.effective": "0-3", "cpuset.mems": "", "cpuset.mems.effective": "0"}
	case "memory":
		return map[string]string{
			"memory.current": "0", "memory.peak": "0", "memory.min": "0", "memory.low": "0", "memory.high": "max",
			"memory.max": "max", "memory.oom.group": "0", "memory.swap.max": "max", "memory.swap.current": "0",
			"memory.stat":     "anon 0\nfile 0\ninactive_file 0",
			"memory.events":   "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0",
			"memory.pressure": pressure,
		}
	case "pids":
		return map[string]string{"pids.max": "max", "pids.current": "0"}
	case "hugetlb":
		return map[string]string{"hugetlb.2MB.max": "9223372036854771712", "hugetlb.2MB.current": "0"}
	case "io":
		return map[string]string{"io.stat": "", "io.max": ""}
	}
	return nil
}

const pressure = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0"

func (k *Unified) populate(dir string, controllers []string, root bool) error {
	put := map[string]string{
		"cgroup.controllers":     strings.Join(controllers, " "),
		"cgroup.subtree_control": "",
		"cgroup.procs":           "",
		"cpu.stat":               "usage_usec 0\nuser_usec 0\nsystem_usec 0",
	}
	if !root {
		put["cgroup.events"] = "populated 0\nfrozen 0"
		put["cgroup.kill"] = ""
		put["cgroup.type"] = "domain"
		for _, c := range controllers {
			for name, value := range files(c) {
				put[name] = value
			}
		}
	}
	for name, value := range put {
		if err := set(filepath.Join(dir, name), value); err != nil {
			return err
		}
	}
	return nil
}

// Hierarchies has the one hierarchy, if it is asked for.
func (k *Unified) Hierarchies(mountpoint string) ([]cgroups.Hierarchy, error) {
	if mountpoint != k.Mountpoint {
		return nil, nil
	}
	return []cgroups.Hierarchy{{Dir: mountpoint, Unified: true}}, nil
}

func (k *Unified) fail(op, path string) error {
	if k.Fail == nil {
		return nil
	}
	return k.Fail(op, path)
}

// Mkdir makes a cgroup with the controllers that its parent passes on.
func (k *Unified) Mkdir(dir string) error {
	if err := k.fail("mkdir", dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return k.populate(dir, fields(filepath.Join(filepath.Dir(dir), "cgroup.subtree_control")), false)
}

// Rmdir removes a cgroup without children and processes.
func (k *Unified) Rmdir(dir string) error {
	if err := k.fail("rmdir", dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return &os.PathError{Op: "rmdir", Path: dir, Err: unix.ENOENT}
	}
	for _, e := range entries {
		if e.IsDir() {
			return &os.PathError{Op: "rmdir", Path: dir, Err: unix.EBUSY}
		}
	}
	if len(fields(filepath.Join(dir, "cgroup.procs"))) > 0 {
		return &os.PathError{Op: "rmdir", Path: dir, Err: unix.EBUSY}
	}
	return os.RemoveAll(dir)
}

// Write writes a control file as the kernel takes it.
func (k *Unified) Write(file, value string) error {
	if err := k.fail("write", file); err != nil {
		return err
	}
	if _, err := os.Stat(file); err != nil {
		return &os.PathError{Op: "open", Path: file, Err: unix.ENOENT}
	}
	rel, _ := filepath.Rel(k.Mountpoint, file)
	k.Writes = append(k.Writes, rel+" "+value)
	if errno := k.write(file, value); errno != nil {
		return &os.PathError{Op: "write", Path: file, Err: errno}
	}
	return nil
}

func (k *Unified) write(file, value string) error {
	dir := filepath.Dir(file)
	switch filepath.Base(file) {
	case "cgroup.subtree_control":
		return k.control(dir, strings.Fields(value))
	case "cgroup.procs":
		if len(fields(filepath.Join(dir, "cgroup.subtree_control"))) > 0 && dir != k.Mountpoint {
			return unix.EBUSY // no processes beside enabled controllers
		}
		return k.populated(dir, append(fields(file), value))
	case "cgroup.kill":
		return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return err
			}
			return k.populated(path, nil)
		})
	case "cpu.weight":
		if n, err := strconv.Atoi(value); err != nil || n < 1 || n > 10000 {
			return unix.ERANGE
		}
	case "cpu.max":
		quota, period, _ := strings.Cut(value, " ")
		if n, err := strconv.Atoi(quota); quota != "max" && (err != nil || n < 1000) {
			return unix.EINVAL
		}
		if n, err := strconv.Atoi(period); err != nil || n < 1000 || n > 1000000 {
			return unix.EINVAL
		}
	case "memory.max", "memory.high", "pids.max", "hugetlb.2MB.max":
		if _, err := strconv.ParseUint(value, 10, 64); value != "max" && err != nil {
			return unix.EINVAL
		}
	case "memory.current", "cgroup.controllers", "cgroup.events", "cpu.stat":
		return unix.EINVAL
	}
	return set(file, value)
}

// control enables and disables controllers for the children of a cgroup.
func (k *Unified) control(dir string, changes []string) error {
	file := filepath.Join(dir, "cgroup.subtree_control")
	on := fields(file)
	for _, c := range changes {
		name := c[1:]
		switch {
		case !slices.Contains(fields(filepath.Join(dir, "cgroup.controllers")), name):
			return unix.ENOENT
		case c[0] == '+' && dir != k.Mountpoint && len(fields(filepath.Join(dir, "cgroup.procs"))) > 0:
			return unix.EBUSY
		case c[0] == '+' && !slices.Contains(on, name):
			on = append(on, name)
		case c[0] == '-':
			on = slices.DeleteFunc(on, func(s string) bool { return s == name })
		}
	}
	if err := set(file, strings.Join(on, " ")); err != nil {
		return err
	}
	children, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, child := range children {
		if !child.IsDir() {
			continue
		}
		below := filepath.Join(dir, child.Name())
		if err := set(filepath.Join(below, "cgroup.controllers"), strings.Join(on, " ")); err != nil {
			return err
		}
		for _, c := range on {
			for name, value := range files(c) {
				if _, err := os.Stat(filepath.Join(below, name)); err == nil {
					continue
				}
				if err := set(filepath.Join(below, name), value); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// populated sets a cgroup's processes, and tells those above.
func (k *Unified) populated(dir string, pids []string) error {
	if err := set(filepath.Join(dir, "cgroup.procs"), strings.Join(pids, "\n")); err != nil {
		return err
	}
	for ; dir != k.Mountpoint; dir = filepath.Dir(dir) {
		n := 0
		_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				n += len(fields(filepath.Join(path, "cgroup.procs")))
			}
			return nil
		})
		events := "populated 0\nfrozen 0"
		if n > 0 {
			events = "populated 1\nfrozen 0"
		}
		if err := set(filepath.Join(dir, "cgroup.events"), events); err != nil {
			return err
		}
	}
	return nil
}

// Set says what a read-only file holds, as the kernel would come to it.
func (k *Unified) Set(t testing.TB, cgroup, file, value string) {
	t.Helper()
	if err := set(filepath.Join(k.Mountpoint, cgroup, file), value); err != nil {
		t.Fatal(err)
	}
}

// Read returns what a control file says, without the last newline.
func (k *Unified) Read(t testing.TB, cgroup, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(k.Mountpoint, cgroup, file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func set(file, value string) error {
	if value != "" {
		value += "\n"
	}
	return os.WriteFile(file, []byte(value), 0o644)
}

func fields(file string) []string {
	b, _ := os.ReadFile(file)
	return strings.Fields(string(b))
}
