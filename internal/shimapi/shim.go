package shimapi

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

const shimDirName = "shim"

// ShimRecord lets a shim be found when containerd has lost its data.
type ShimRecord struct {
	SandboxID string `json:"sandboxID"`
	Namespace string `json:"namespace"` // containerd's
	Pid       int    `json:"pid"`
	StartTime uint64 `json:"startTime"` // field 22 of /proc/<pid>/stat: clock ticks since boot
	Bundle    string `json:"bundle"`    // of the first container; it may be gone by now
	Socket    string `json:"socket"`    // where containerd talks to it
}

// Alive tells whether the process of the record still runs: the pid exists, is
// no zombie, and was started at the same clock tick, so that a reused pid is
// told apart.
func (r ShimRecord) Alive() bool {
	s, err := processStat(r.Pid)
	return err == nil && s.start == r.StartTime && s.state != 'Z' && s.state != 'X'
}

// ShimDir holds the control sockets and the shim records.
func ShimDir(runDir string) string { return filepath.Join(runDir, shimDirName) }

func shimPath(runDir, sandbox string) string {
	return filepath.Join(ShimDir(runDir), sandbox+".json")
}

// WriteShim stores the record of a shim, by rename.
func WriteShim(runDir string, r ShimRecord) error {
	if err := CheckID(r.SandboxID); err != nil {
		return err
	}
	if err := writeJSON(shimPath(runDir, r.SandboxID), r); err != nil {
		return fmt.Errorf("write shim record of %s: %w", r.SandboxID, err)
	}
	return nil
}

// ReadShim returns the record of a sandbox's shim; errors.Is(err,
// os.ErrNotExist) when there is none.
func ReadShim(runDir, sandbox string) (ShimRecord, error) {
	if err := CheckID(sandbox); err != nil {
		return ShimRecord{}, err
	}
	var r ShimRecord
	if err := readJSON(shimPath(runDir, sandbox), &r); err != nil {
		return ShimRecord{}, fmt.Errorf("read shim record of %s: %w", sandbox, err)
	}
	return r, nil
}

// RemoveShim removes record and control socket of a shim that is gone; missing
// ones are no error.
func RemoveShim(runDir, sandbox string) error {
	if err := CheckID(sandbox); err != nil {
		return err
	}
	for _, suffix := range []string{".json", ".sock"} {
		err := os.Remove(filepath.Join(ShimDir(runDir), sandbox+suffix))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove shim record: %w", err)
		}
	}
	return nil
}

// ListShims returns the sandbox ids of all shim records.
func ListShims(runDir string) ([]string, error) { return listIDs(ShimDir(runDir)) }

// ProcessStartTime returns field 22 of /proc/<pid>/stat (proc_pid_stat(5)).
func ProcessStartTime(pid int) (uint64, error) {
	s, err := processStat(pid)
	return s.start, err
}

// ProcessParent returns the pid of a process' parent.
func ProcessParent(pid int) (int, error) {
	s, err := processStat(pid)
	return s.parent, err
}

// stat is a part of proc_pid_stat(5).
type stat struct {
	state  byte   // field 3
	parent int    // field 4
	start  uint64 // field 22, in clock ticks since boot
}

func processStat(pid int) (s stat, err error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return s, err
	}
	end := bytes.LastIndexByte(data, ')') // the command may hold anything before it
	if end < 0 {
		return s, errors.New("parse process stat: no command")
	}
	fields := bytes.Fields(data[end+1:])
	const startTime = 22 - 3 // the first field after the command is number 3
	if len(fields) <= startTime {
		return s, errors.New("parse process stat: too few fields")
	}
	s.state = fields[0][0]
	if s.parent, err = strconv.Atoi(string(fields[1])); err != nil {
		return s, fmt.Errorf("parse process stat: %w", err)
	}
	s.start, err = strconv.ParseUint(string(fields[startTime]), 10, 64)
	return s, err
}

// Timeout is how long a client waits for a shim to answer a request.
const Timeout = 10 * time.Second
