package shimapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ExitRecord is what the shim puts on disk the instant a container's init ends.
type ExitRecord struct {
	ContainerID string    `json:"containerID"`
	SandboxID   string    `json:"sandboxID"`
	Pid         int       `json:"pid,omitempty"`
	ExitCode    uint32    `json:"exitCode"` // 128 + signal for a signalled process, as runc and kubelet count
	StartedAt   time.Time `json:"startedAt,omitzero"`
	ExitedAt    time.Time `json:"exitedAt"`
	// OOMKills is the oom_kill counter of the container's own cgroup
	// (memory.events on v2, memory.oom_control on v1) at that moment.
	OOMKills uint64 `json:"oomKills"`
	// ShimLost: the shim had died, and the one who cleaned up for it killed
	// what was left; the code may then be 137 instead of the real one.
	ShimLost bool `json:"shimLost,omitempty"`
}

const (
	exitDirName = "exit"
	recordMax   = 64 << 10 // far above any honest record
)

// ExitDir is the directory whose entries are exit records; watch it for
// renames to learn of exits.
func ExitDir(runDir string) string { return filepath.Join(runDir, exitDirName) }

func exitPath(runDir, id string) string { return filepath.Join(runDir, exitDirName, id+".json") }

// WriteExit stores the record by temporary file and rename: a reader sees the
// whole record or none. It does not sync: the directory is a tmpfs.
func WriteExit(runDir string, r ExitRecord) error {
	if err := CheckID(r.ContainerID); err != nil {
		return err
	}
	if err := writeJSON(exitPath(runDir, r.ContainerID), r); err != nil {
		return fmt.Errorf("write exit record of %s: %w", r.ContainerID, err)
	}
	return nil
}

// ReadExit returns the record of a container; errors.Is(err, os.ErrNotExist)
// when there is none.
func ReadExit(runDir, id string) (ExitRecord, error) {
	if err := CheckID(id); err != nil {
		return ExitRecord{}, err
	}
	var r ExitRecord
	if err := readJSON(exitPath(runDir, id), &r); err != nil {
		return ExitRecord{}, fmt.Errorf("read exit record of %s: %w", id, err)
	}
	if r.ContainerID != id || r.ExitedAt.IsZero() {
		return ExitRecord{}, fmt.Errorf("read exit record of %s: it names container %q", id, r.ContainerID)
	}
	return r, nil
}

// RemoveExit removes the record of a container; a missing one is no error.
func RemoveExit(runDir, id string) error {
	if err := CheckID(id); err != nil {
		return err
	}
	if err := os.Remove(exitPath(runDir, id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove exit record: %w", err)
	}
	return nil
}

// ListExits returns the ids of all containers that have a record.
func ListExits(runDir string) ([]string, error) { return listIDs(ExitDir(runDir)) }

func listIDs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list records: %w", err)
	}
	var ids []string
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if ok && CheckID(id) == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".tmp-*")
	if errors.Is(err, os.ErrNotExist) { // somebody emptied the run directory under a living shim
		if err = os.MkdirAll(dir, 0o700); err == nil {
			f, err = os.CreateTemp(dir, ".tmp-*")
		}
	}
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

func readJSON(path string, v any) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > recordMax {
		return errors.New("not a regular file of at most 64 KiB")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}
