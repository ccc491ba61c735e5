// Package machine reads what a machine is from its files: processors, memory,
// huge pages, and the names that tell it and its boots from others.
//
// It never writes and keeps nothing. The root of the files is a value. Any
// goroutine may call it; it reads from the kernel and from small files only.
package machine

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nodeagent/internal/pod"
)

// Machine is what a machine is. Only CPUs and Memory are always known.
type Machine struct {
	CPUs         int
	Memory, Swap int64           // bytes
	HugePages    map[int64]int64 // bytes of a page: how many are set aside
	PIDs         int64           // how many processes there can be; 0: not known

	MachineID, SystemUUID, BootID string
	Kernel, OSImage               string
}

// maxFile is the most that is read of a file: all of them are small.
const maxFile = 1 << 20

// Read reads the machine whose file system is below root, which is / but in
// tests.
func Read(root string) (Machine, error) {
	m := Machine{HugePages: map[int64]int64{}, OSImage: "Linux"}
	var errs []error
	m.Memory, m.Swap = memory(root, &errs)
	if n, err := pod.CountCPUs(word(root, "sys/devices/system/cpu/online")); err == nil {
		m.CPUs = n
	} else {
		errs = append(errs, fmt.Errorf("read the node's processors: %w", err))
	}
	if err := m.hugePages(root); err != nil {
		errs = append(errs, err)
	}
	m.PIDs, _ = strconv.ParseInt(word(root, "proc/sys/kernel/pid_max"), 10, 64)
	m.MachineID = first(root, "etc/machine-id", "var/lib/dbus/machine-id")
	m.SystemUUID = first(root, "sys/class/dmi/id/product_uuid", "proc/device-tree/system-id",
		"proc/device-tree/vm,uuid", "etc/machine-id")
	m.BootID = word(root, "proc/sys/kernel/random/boot_id")
	m.Kernel = word(root, "proc/sys/kernel/osrelease")
	if name := prettyName(root); name != "" {
		m.OSImage = name
	}
	return m, errors.Join(errs...)
}

// memory is MemTotal and SwapTotal of /proc/meminfo in bytes.
func memory(root string, errs *[]error) (total, swap int64) {
	text, err := read(root, "proc/meminfo")
	if err != nil {
		*errs = append(*errs, fmt.Errorf("read the node's memory: %w", err))
		return 0, 0
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		switch {
		case err != nil:
		case name == "MemTotal":
			total = kib << 10
		case name == "SwapTotal":
			swap = kib << 10
		}
	}
	if total <= 0 {
		*errs = append(*errs, errors.New("read the node's memory: /proc/meminfo has no MemTotal"))
	}
	return total, swap
}

// hugePages reads how many pages of each size are set aside.
func (m *Machine) hugePages(root string) error {
	const dir = "sys/kernel/mm/hugepages"
	sizes, err := os.ReadDir(filepath.Join(root, dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel without
	}
	if err != nil {
		return fmt.Errorf("read the node's huge pages: %w", err)
	}
	for _, s := range sizes {
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(s.Name(), "hugepages-"), "kB"), 10, 64)
		if err != nil {
			continue
		}
		n, err := strconv.ParseInt(word(root, filepath.Join(dir, s.Name(), "nr_hugepages")), 10, 64)
		if err != nil {
			return fmt.Errorf("read the node's huge pages of %d KiB: %w", kib, err)
		}
		m.HugePages[kib<<10] = n
	}
	return nil
}

// prettyName is what the distribution calls itself.
func prettyName(root string) string {
	for _, path := range []string{"etc/os-release", "usr/lib/os-release"} {
		text, err := read(root, path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
				return strings.Trim(name, `"'`)
			}
		}
	}
	return ""
}

// first is the word in the first of the files that has one.
func first(root string, paths ...string) string {
	for _, p := range paths {
		if w := word(root, p); w != "" {
			return w
		}
	}
	return ""
}

// word is the content of a small file without what stands around it; "" if
// there is none.
func word(root, path string) string {
	text, err := read(root, path)
	if err != nil {
		return ""
	}
	return strings.Trim(string(text), " \t\n\x00")
}

func read(root, path string) ([]byte, error) {
	f, err := os.Open(filepath.Join(root, path))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// Storage is the size in bytes of the file system on which dir is, or will be:
// the nearest directory above that is there counts.
func Storage(dir string) (int64, error) {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if err == nil {
			return int64(st.Blocks) * int64(st.Bsize), nil
		}
		up := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || up == dir {
			return 0, fmt.Errorf("read the size of the file system of %s: %w", dir, err)
		}
		dir = up
	}
}
