package diag

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ProcessFacts are what /proc/PID/status and attr say of a process's rights
// (proc_pid_status(5), proc_pid_attr(5)).
type ProcessFacts struct {
	UID          uint32       `json:"uid"` // effective
	GID          uint32       `json:"gid"`
	Groups       []uint32     `json:"groups"`
	Capabilities Capabilities `json:"capabilities"`
	NoNewPrivs   bool         `json:"noNewPrivileges"`
	Seccomp      string       `json:"seccomp"` // disabled, strict or filter
	Filters      int          `json:"seccompFilters"`
	AppArmor     string       `json:"appArmorProfile,omitempty"` // "" where there is no AppArmor
}

// Capabilities are names such as CAP_CHOWN; lists are never nil.
type Capabilities struct {
	Bounding    []string `json:"bounding"`
	Effective   []string `json:"effective"`
	Permitted   []string `json:"permitted"`
	Inheritable []string `json:"inheritable"`
	Ambient     []string `json:"ambient"`
}

func readProcess(proc string, pid int) (ProcessFacts, error) {
	text, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "status"))
	if err != nil {
		return ProcessFacts{}, fmt.Errorf("read the rights of process %d: %w", pid, err)
	}
	facts, err := parseStatus(text)
	if err != nil {
		return facts, err
	}
	// A kernel without AppArmor has no such directory, or nothing to say in it.
	if label, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "attr", "apparmor", "current")); err == nil {
		facts.AppArmor = confinedBy(string(label))
	}
	return facts, nil
}

// confinedBy is the name in "name (mode)"; "unconfined" has no mode.
func confinedBy(label string) string {
	label = strings.TrimSuffix(strings.TrimRight(label, "\x00\n"), ")")
	if i := strings.LastIndex(label, " ("); i >= 0 {
		return label[:i]
	}
	return label
}

var seccompModes = []string{"disabled", "strict", "filter"}

func parseStatus(text []byte) (ProcessFacts, error) {
	f := ProcessFacts{Groups: []uint32{}}
	seen := 0
	for line := range bytes.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimRight(string(line), "\n"), ":")
		value = strings.TrimSpace(value)
		var err error
		switch key {
		case "Uid":
			f.UID, err = secondID(value)
		case "Gid":
			f.GID, err = secondID(value)
		case "Groups":
			for field := range strings.FieldsSeq(value) {
				n, nerr := strconv.ParseUint(field, 10, 32)
				if nerr != nil {
					return f, fmt.Errorf("read /proc status: groups %q: %w", value, nerr)
				}
				f.Groups = append(f.Groups, uint32(n))
			}
		case "CapInh":
			f.Capabilities.Inheritable, err = parseCaps(value)
		case "CapPrm":
			f.Capabilities.Permitted, err = parseCaps(value)
		case "CapEff":
			f.Capabilities.Effective, err = parseCaps(value)
		case "CapBnd":
			f.Capabilities.Bounding, err = parseCaps(value)
		case "CapAmb":
			f.Capabilities.Ambient, err = parseCaps(value)
		case "NoNewPrivs":
			f.NoNewPrivs = value == "1"
		case "Seccomp":
			f.Seccomp = value
			if n, nerr := strconv.Atoi(value); nerr == nil && n >= 0 && n < len(seccompModes) {
				f.Seccomp = seccompModes[n]
			}
		case "Seccomp_filters":
			f.Filters, err = strconv.Atoi(value)
		default:
			continue
		}
		if err != nil {
			return f, fmt.Errorf("read /proc status: %s: %w", key, err)
		}
		seen++
	}
	if seen < 8 {
		return f, fmt.Errorf("read /proc status: only %d of the fields are there", seen)
	}
	return f, nil
}

// secondID is the effective one of real, effective, saved and file system.
func secondID(value string) (uint32, error) {
	all := strings.Fields(value)
	if len(all) != 4 {
		return 0, fmt.Errorf("%q has not four ids", value)
	}
	n, err := strconv.ParseUint(all[1], 10, 32)
	return uint32(n), err
}

// capNames are the kernel's, by number (linux/capability.h).
var capNames = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
}

func parseCaps(value string) ([]string, error) {
	mask, err := strconv.ParseUint(value, 16, 64)
	if err != nil {
		return nil, err
	}
	all := []string{}
	for i := range 64 {
		if mask&(1<<i) == 0 {
			continue
		}
		name := "CAP_" + strconv.Itoa(i)
		if i < len(capNames) {
			name = "CAP_" + capNames[i]
		}
		all = append(all, name)
	}
	return all, nil
}

// namespaceKinds are the names in /proc/PID/ns, and in an OCI spec.
var namespaceKinds = map[string]string{
	"cgroup": "cgroup", "ipc": "ipc", "mnt": "mount", "net": "network", "pid": "pid", "time": "time", "user": "user", "uts": "uts",
}

// Namespace is a namespace that a container is in.
type Namespace struct {
	ID   uint64 `json:"id"`   // inode number, as lsns shows it
	Host bool   `json:"host"` // it is the one that this program is in
}

func readNamespaces(proc string, pid int) (map[string]Namespace, error) {
	all := map[string]Namespace{}
	for kind, name := range namespaceKinds {
		id, err := namespaceID(filepath.Join(proc, strconv.Itoa(pid), "ns", kind))
		if os.IsNotExist(err) && kind == "time" {
			continue // an old kernel
		}
		if err != nil {
			return nil, fmt.Errorf("read the namespaces of process %d: %w", pid, err)
		}
		own, err := namespaceID(filepath.Join(proc, "self", "ns", kind))
		all[name] = Namespace{ID: id, Host: err == nil && own == id}
	}
	return all, nil
}

func namespaceID(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}
