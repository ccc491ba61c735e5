package cgroups

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
	"nodeagent/internal/test/need"
)

var rootNumber atomic.Int64

// realTree is a tree of this machine's kernel with a root of its own, which is
// gone with all in it when the test ends.
func realTree(t testing.TB, change ...func(*Config)) *Tree {
	t.Helper()
	need.Have(t, need.Root)
	c := Config{Root: fmt.Sprintf("/nodeagent-test-%d-%d", os.Getpid(), rootNumber.Add(1)), Driver: Cgroupfs}
	for _, f := range change {
		f(&c)
	}
	tree, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		dirs := tree.existing(c.Root)
		if err := tree.kill(within(t, 10*time.Second), dirs); err != nil {
			t.Errorf("kill what the test left: %v", err)
		}
		if busy, err := tree.rmdirs(dirs); len(busy) > 0 {
			t.Errorf("remove what the test left: %v", err)
		}
		for _, h := range tree.hierarchies {
			if dir := filepath.Join(h.Dir, c.Root); exists(dir) {
				t.Errorf("%s is left", dir)
			}
		}
	})
	if err := tree.EnsureNode(t.Context(), pod.Resources{CPUShares: 2048, CPUWeight: 79}); err != nil {
		t.Fatal(err)
	}
	return tree
}

// unifiedTree is a v2 tree on the real unified hierarchy of a hybrid machine,
// which has no more than the hugetlb controller, or of a v2 machine.
func unifiedTree(t testing.TB) *Tree {
	t.Helper()
	return realTree(t, func(c *Config) {
		c.Require = []string{}
		if hybrid := "/sys/fs/cgroup/unified"; exists(hybrid) {
			c.Mountpoint = hybrid
		} else {
			need.Have(t, need.CgroupV2)
		}
	})
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), d)
	t.Cleanup(cancel)
	return ctx
}

// eater is a script that asks for memory without end: tail keeps a line that has
// none. (A shell that keeps what it reads takes it in pieces of 128 bytes, which
// an emulated CPU needs half a minute for.)
const eater = "echo ready; exec tail /dev/zero"

// holds20MB is a script that has memory, which goes with its last process. A file in
// memory is charged as other memory is, and costs an emulated CPU a fraction of a
// shell's variable.
const holds20MB = `f=/dev/shm/nodeagent-test.$$; head -c 20000000 /dev/zero >$f; exec 3<$f; rm $f; echo ready; read never`

// script starts a shell in a cgroup, in every hierarchy as an OCI runtime does,
// and waits until it says "ready".
func script(t testing.TB, tree *Tree, cgroup, text string) *exec.Cmd {
	t.Helper()
	for _, h := range tree.hierarchies {
		if err := os.MkdirAll(filepath.Join(h.Dir, cgroup), 0o755); err != nil {
			t.Fatal(err)
		}
		inherit(t, h, cgroup)
	}
	cmd := exec.Command("/bin/sh", "-c", "read go; "+text)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	reaped := make(chan struct{})
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-reaped
	})
	for _, h := range tree.hierarchies {
		join(t, h, cgroup, cmd.Process.Pid)
	}
	if _, err := io.WriteString(stdin, "go\n"); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if line != "ready\n" {
		t.Fatalf("the script said %q, %v", line, err)
	}
	go func() { // the reaper of what is killed: a shim in real life
		defer close(reaped)
		_ = cmd.Wait()
	}()
	return cmd
}

// inherit fills a cpuset as an OCI runtime does; nobody can join an empty one.
func inherit(t testing.TB, h Hierarchy, cgroup string) {
	t.Helper()
	if h.Unified || !h.has("cpuset") {
		return
	}
	at := h.Dir
	for name := range strings.SplitSeq(strings.Trim(cgroup, "/"), "/") {
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			value := readString(t, filepath.Join(at, file))
			if readString(t, filepath.Join(at, name, file)) == "" {
				writeFile(t, filepath.Join(at, name, file), value)
			}
		}
		at = filepath.Join(at, name)
	}
}

func join(t testing.TB, h Hierarchy, cgroup string, pid int) {
	t.Helper()
	writeFile(t, filepath.Join(h.Dir, cgroup, "cgroup.procs"), strconv.Itoa(pid))
}

func readString(t testing.TB, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func writeFile(t testing.TB, file, value string) {
	t.Helper()
	if err := (linux{}).Write(file, value); err != nil {
		t.Fatal(err)
	}
}

// left lists the directories of a cgroup that are there.
func left(tree *Tree, cgroup string) []string {
	var out []string
	for _, d := range tree.existing(cgroup) {
		out = append(out, d.path)
	}
	return out
}

const someUID = types.UID("0a1b2c3d-0000-4000-8000-123456789abc")
