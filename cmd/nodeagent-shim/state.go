//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"nodeagent/internal/shimapi"
)

// state is what we need of runc's state.json.
type state struct {
	ID       string            `json:"id"`
	Pid      int               `json:"init_process_pid"`
	Born     uint64            `json:"init_process_start"` // clock ticks since boot
	Rootless bool              `json:"rootless"`
	Cgroups  map[string]string `json:"cgroup_paths"`
	Config   struct {
		Namespaces []struct{ Type, Path string }
		Hooks      map[string][]json.RawMessage
		RDT        json.RawMessage `json:"intel_rdt"`
	}
}

func readState(dir string) (s state, err error) {
	data, err := os.ReadFile(filepath.Join(dir, "state.json"))
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	return s, err
}

// plain tells that the state is that of the container, and that nothing but cgroups
// of its own has to go with it: no hook is to run, and no process can have outlived
// its init, which was the first of a PID namespace.
func (s *state) plain(id string) bool {
	private := false
	for _, ns := range s.Config.Namespaces {
		private = private || ns.Type == "NEWPID" && ns.Path == ""
	}
	for _, path := range s.Cgroups {
		if filepath.Base(path) != id || !filepath.IsAbs(path) {
			return false
		}
	}
	rdt := string(s.Config.RDT)
	return s.ID == id && private && s.Pid > 0 && len(s.Cgroups) > 0 && !s.Rootless &&
		len(s.Config.Hooks["poststop"]) == 0 && (rdt == "" || rdt == "null")
}

// alive tells whether the container's first process, known by number and birth,
// has not been reaped.
func (s *state) alive() bool {
	born, err := shimapi.ProcessStartTime(s.Pid)
	if err != nil {
		_, err = os.Stat(fmt.Sprintf("/proc/%d", s.Pid))
		return !errors.Is(err, os.ErrNotExist)
	}
	return born == s.Born
}
