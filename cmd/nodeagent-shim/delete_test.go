//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nodeagent/internal/shimapi"
)

// TestDeleteHere: the cgroups and the state of a container that has ended go; where
// there is more to do than that, the state stays for runc.
func TestDeleteHere(t *testing.T) {
	born, err := shimapi.ProcessStartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	const ended = `"init_process_pid":4194305,"init_process_start":1`
	alive := fmt.Sprintf(`"init_process_pid":%d,"init_process_start":%d`, os.Getpid(), born)
	reused := fmt.Sprintf(`"init_process_pid":%d,"init_process_start":%d`, os.Getpid(), born+1)
	const private, hooks = `"namespaces":[{"type":"NEWNS"},{"type":"NEWPID"}]`, `"Hooks":{"prestart":null,"poststop":null}`
	for name, c := range map[string]struct {
		init, config, args string
		cgroup             string // below %[1]s, where only c1's are empty
		here               bool
	}{
		"it has ended":                    {ended, private + "," + hooks, "--log l delete c1", "", true},
		"its number is another's":         {reused, private, "--log l delete c1", "", true},
		"it runs":                         {alive, private, "--log l delete c1", "", false},
		"its state has no number":         {`"init_process_start":1`, private, "--log l delete c1", "", false},
		"others may have outlived it":     {ended, `"namespaces":[{"type":"NEWPID","path":"/proc/1/ns/pid"}]`, "--log l delete c1", "", false},
		"it is in the host's namespace":   {ended, `"namespaces":[{"type":"NEWNS"}]`, "--log l delete c1", "", false},
		"a hook is to run":                {ended, private + `,"Hooks":{"poststop":[{"path":"/bin/true"}]}`, "--log l delete c1", "", false},
		"its cgroup is in use":            {ended, private, "--log l delete c1", "used/c1", false},
		"its cgroup is not its own":       {ended, private, "--log l delete c1", "b", false},
		"it has a share of the caches":    {ended, private + `,"intel_rdt":{"closID":"x"}`, "--log l delete c1", "", false},
		"its scope is systemd's":          {ended, private, "--systemd-cgroup delete c1", "", false},
		"it is to be killed first":        {ended, private, "--log l delete --force c1", "", false},
		"another command":                 {ended, private, "--log l kill c1 9", "", false},
		"its state is cut short":          {ended, private[:9], "--log l delete c1", "", false},
		"its name is a verb, and no more": {ended, private, "--log l kill delete 15", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			root, cgroups := t.TempDir(), t.TempDir()
			dir := filepath.Join(root, "c1")
			second := filepath.Join(cgroups, "b/c1")
			if c.cgroup != "" {
				second = filepath.Join(cgroups, c.cgroup)
			}
			state := fmt.Sprintf(`{"id":"c1",%s,"cgroup_paths":{"cpu":%q,"cpuacct":%[2]q,"memory":%[3]q},"config":{%[4]s}}`,
				c.init, filepath.Join(cgroups, "a/c1"), second, c.config)
			if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "state.json"), []byte(state), 0o600),
				os.MkdirAll(filepath.Join(cgroups, "a/c1"), 0o700), os.MkdirAll(filepath.Join(cgroups, "b/c1"), 0o700),
				os.MkdirAll(filepath.Join(cgroups, "used/c1/below"), 0o700)); err != nil {
				t.Fatal(err)
			}
			cmd := &exec.Cmd{Args: append([]string{"runc", "--root", root}, strings.Fields(c.args)...)}
			done := deleteHere(cmd)
			if (done != nil) != c.here {
				t.Fatalf("deleted here: %t, want %t", done != nil, c.here)
			}
			if _, err := os.Stat(dir); os.IsNotExist(err) != c.here {
				t.Errorf("look for runc's state: %v", err)
			}
			if _, err := os.Stat(filepath.Join(cgroups, "used/c1/below")); err != nil {
				t.Error(err)
			}
			if !c.here {
				return
			}
			for _, path := range []string{"a/c1", "b/c1"} {
				if _, err := os.Stat(filepath.Join(cgroups, path)); !os.IsNotExist(err) {
					t.Errorf("look for the cgroup %s: %v", path, err)
				}
			}
			m := &stdioMonitor{}
			if status, err := m.Wait(cmd, done); status != 0 || err != nil {
				t.Errorf("the deletion ended with %d, %v", status, err)
			}
		})
	}
}
