package cluster_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
	"nodeagent/test/cluster"
)

const ownerMark = "NODEAGENT_CLUSTER_OWNER"

// TestOwner is no test: it is the process that TestOwnerKilled kills.
func TestOwner(t *testing.T) {
	if os.Getenv(ownerMark) == "" {
		return
	}
	b := bed.Containerd(t, bed.Options{Stock: true})
	cluster.Up(t, b, cluster.Options{})
	fmt.Printf("%sis up: %s\n", ownerMark, b.Dir())
	fmt.Println(ownerMark + "waits: ")
	<-t.Context().Done()
}

// TestOwnerKilled kills a process that owns a cluster and proves that nothing of
// the cluster stays.
func TestOwnerKilled(t *testing.T) {
	need.Have(t, need.Root)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if _, err := cluster.Programs(ctx, os.Stderr); err != nil {
		t.Fatal(err)
	}
	owner := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestOwner$", "-test.timeout=10m")
	owner.Env = append(os.Environ(), ownerMark+"=1")
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	owner.Stderr = os.Stderr
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	said := map[string][]string{}
	all := ""
	for s := bufio.NewScanner(out); said["waits"] == nil && s.Scan(); {
		all += s.Text() + "\n"
		if rest, ok := strings.CutPrefix(s.Text(), ownerMark); ok {
			what, value, _ := strings.Cut(rest, ": ")
			said[strings.TrimSpace(what)] = append(said[strings.TrimSpace(what)], value)
		}
	}
	if said["is up"] == nil {
		t.Fatalf("the owner said %q and ended: %v", all, owner.Wait())
	}
	dir := said["is up"][0]
	if procs := running(t, dir); len(procs) < 5 {
		t.Errorf("the bed runs %q, want containerd and the four of the control plane", procs)
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait() // it was killed
	for {            // the reaper is nobody's child any more, and tells nobody
		if _, err := os.Lstat(dir); os.IsNotExist(err) {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("%s is still there", dir)
		}
		bed.Pause(ctx, 10*time.Millisecond)
	}
	if procs := running(t, dir); len(procs) > 0 {
		t.Errorf("still running: %q", procs)
	}
}

// running are the processes in the cgroup of the bed with a directory. Those that
// have ended, and whose parent has not looked yet, are not.
func running(t *testing.T, dir string) (names []string) {
	t.Helper()
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		b, err := os.ReadFile(g)
		if err != nil || !strings.Contains(string(b), "/nodeagent-bed-"+filepath.Base(dir)) {
			continue // gone meanwhile, or somebody else's
		}
		stat, _ := os.ReadFile(filepath.Join(filepath.Dir(g), "stat")) // "pid (name) state ..."
		if i := bytes.LastIndexByte(stat, ')'); i > 0 && !bytes.HasPrefix(stat[i:], []byte(") Z")) {
			names = append(names, string(stat[:i+1]))
		}
	}
	return names
}
