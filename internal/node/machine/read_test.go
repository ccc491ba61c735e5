package machine_test

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"nodeagent/internal/node/machine"
)

// root makes files below a directory.
func root(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for path, text := range files {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func host() map[string]string {
	return map[string]string{
		"proc/meminfo":                   "MemTotal:        8000 kB\nMemFree: 1 kB\nSwapTotal:   4 kB\nHugePages_Total:   3\n",
		"sys/devices/system/cpu/online":  "0-2,7\n",
		"proc/sys/kernel/random/boot_id": "boot-1\n", "proc/sys/kernel/osrelease": "6.18.0\n", "proc/sys/kernel/pid_max": "4194304\n",
		"etc/machine-id": "abc\n", "sys/class/dmi/id/product_uuid": "UUID\n",
		"etc/os-release": "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n",
		"sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages":    "3\n",
		"sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages": "0\n",
	}
}

func TestRead(t *testing.T) {
	m, err := machine.Read(root(t, host()))
	if err != nil {
		t.Fatal(err)
	}
	if want := map[int64]int64{2 << 20: 3, 1 << 30: 0}; !maps.Equal(m.HugePages, want) {
		t.Errorf("huge pages %v, want %v", m.HugePages, want)
	}
	m.HugePages = nil
	want := machine.Machine{CPUs: 4, Memory: 8000 << 10, Swap: 4 << 10, PIDs: 4194304, MachineID: "abc", SystemUUID: "UUID",
		BootID: "boot-1", Kernel: "6.18.0", OSImage: "Debian GNU/Linux 12"}
	if got, want := m, want; got.CPUs != want.CPUs || got.Memory != want.Memory || got.Swap != want.Swap || got.PIDs != want.PIDs ||
		got.MachineID != want.MachineID || got.SystemUUID != want.SystemUUID || got.BootID != want.BootID ||
		got.Kernel != want.Kernel || got.OSImage != want.OSImage {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestReadPoor: of what a container or a small board lacks, only processors and
// memory are errors.
func TestReadPoor(t *testing.T) {
	files := host()
	maps.DeleteFunc(files, func(path, _ string) bool {
		return path != "proc/meminfo" && path != "sys/devices/system/cpu/online" && path != "etc/machine-id"
	})
	m, err := machine.Read(root(t, files))
	if err != nil || m.OSImage != "Linux" || m.SystemUUID != "abc" || len(m.HugePages) != 0 {
		t.Errorf("%+v, %v", m, err)
	}
	for _, path := range []string{"proc/meminfo", "sys/devices/system/cpu/online"} {
		for _, text := range []string{"", "x\n"} {
			files := host()
			files[path] = text
			if _, err := machine.Read(root(t, files)); err == nil {
				t.Errorf("%s of %q is no error", path, text)
			}
		}
	}
}

// TestThisMachine: the real files are there too.
func TestThisMachine(t *testing.T) {
	m, err := machine.Read("/")
	if err != nil || m.CPUs < 1 || m.Memory < 1<<20 || m.BootID == "" || m.Kernel == "" {
		t.Errorf("%+v, %v", m, err)
	}
	if n, err := machine.Storage(filepath.Join(t.TempDir(), "not/yet/there")); err != nil || n < 1<<20 {
		t.Errorf("%d, %v", n, err)
	}
}
