package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	eventstypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	runcC "github.com/containerd/go-runc"
	"go.uber.org/goleak"
)

func TestParseServe(t *testing.T) {
	for _, c := range []struct {
		args  []string
		serve bool
	}{
		{[]string{"-namespace", "k8s.io", "-id", "x", "-address", "/a"}, true},
		{[]string{"-namespace", "k8s.io", "-id", "x", "-address", "/a", "-debug"}, true},
		{[]string{"-namespace", "k8s.io", "-id", "x", "-address", "/a", "start"}, false},
		{[]string{"-namespace", "k8s.io", "-id", "x", "-address", "/a", "-bundle", "/b", "delete"}, false},
		{[]string{"-info"}, false}, {[]string{"-v"}, false}, {nil, false},
	} {
		if _, ok := parseServe(c.args); ok != c.serve {
			t.Errorf("parseServe(%q) = %t", c.args, ok)
		}
	}
}

// hungPublisher blocks in Publish, as one does whose containerd hangs.
type hungPublisher struct {
	entered chan struct{}
	release chan struct{}
	mu      sync.Mutex
	got     []events.Event
}

func (p *hungPublisher) Publish(_ context.Context, _ string, ev events.Event) error {
	p.entered <- struct{}{}
	<-p.release
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got = append(p.got, ev)
	return nil
}

func (p *hungPublisher) Close() error { return nil }

// Publish never blocks; over the limit the passing events go, exits stay.
func TestEventQueueNeverBlocks(t *testing.T) {
	defer goleak.VerifyNone(t)
	inner := &hungPublisher{entered: make(chan struct{}, 10_000), release: make(chan struct{})}
	q := newEventQueue(inner)
	var wg sync.WaitGroup
	wg.Go(q.run)
	ctx := t.Context()
	_ = q.Publish(ctx, "t", &eventstypes.TaskStart{ContainerID: "first"})
	<-inner.entered
	const exits = 100
	for i := range 2000 {
		_ = q.Publish(ctx, "t", &eventstypes.TaskStart{ContainerID: "c"})
		if i%20 == 0 {
			_ = q.Publish(ctx, "t", &eventstypes.TaskExit{ContainerID: "c", ID: "c", ExitStatus: uint32(i)})
		}
	}
	close(inner.release)
	for range queueMax { // the queue is full of what was kept
		<-inner.entered
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	got := 0
	for _, ev := range inner.got {
		if _, ok := ev.(*eventstypes.TaskExit); ok {
			got++
		}
	}
	if got < exits-1 { // the last may be in hand when the queue closes
		t.Errorf("%d of %d exits were published", got, exits)
	}
	_ = q.Publish(ctx, "t", &eventstypes.TaskExit{}) // after Close: nothing happens
}

func TestEventQueueHandsInitExitsOver(t *testing.T) {
	q := newEventQueue(&hungPublisher{})
	var taken []string
	q.onExit = func(ev *eventstypes.TaskExit, _ func()) bool {
		taken = append(taken, ev.ID)
		return true
	}
	_ = q.Publish(t.Context(), "t", &eventstypes.TaskExit{ContainerID: "c", ID: "exec"})
	_ = q.Publish(t.Context(), "t", &eventstypes.TaskExit{ContainerID: "c", ID: "c"})
	if len(taken) != 1 || taken[0] != "c" || len(q.queue) != 1 {
		t.Errorf("taken over %v, queued %d", taken, len(q.queue))
	}
}

func TestMonitorConnectsCreateOnly(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	m := &stdioMonitor{ProcessMonitor: runcC.Monitor, pending: map[string]stdio{}}
	m.expect("c1", stdio{out: w})
	for _, c := range []struct {
		args []string
		ours bool
	}{
		{[]string{"runc", "--root", "/r", "create", "--bundle", "/b", "c1"}, true},
		{[]string{"runc", "--root", "/r", "create", "--bundle", "/b", "c2"}, false},
		{[]string{"runc", "--root", "/r", "exec", "--process", "/p", "c1"}, false},
		{[]string{"runc", "start", "c1"}, false},
		{nil, false},
	} {
		cmd := &exec.Cmd{Args: c.args, Stdout: io.Discard, Stdin: r}
		m.connect(cmd)
		if (cmd.Stdout == w) != c.ours || (c.ours && (cmd.Stdin != nil || cmd.Stderr != nil)) {
			t.Errorf("%q: stdout %v, stdin %v, stderr %v", c.args, cmd.Stdout, cmd.Stdin, cmd.Stderr)
		}
	}
	m.forget("c1")
	if len(m.pending) != 0 {
		t.Error("the container is still expected")
	}
}

func TestMemoryCgroup(t *testing.T) {
	for name, c := range map[string]struct {
		text, path string
		v1         bool
	}{
		"v2":      {"0::/kubepods/pod1/c1\n", "/kubepods/pod1/c1", false},
		"v1":      {"5:cpu,cpuacct:/a\n9:memory:/kubepods/c:1\n0::/u\n", "/kubepods/c:1", true},
		"hybrid":  {"9:memory,hugetlb:/m\n0::/\n", "/m", true},
		"nothing": {"", "", false},
		"garbage": {"x\n::\n1:2\n", "", false},
	} {
		if path, v1 := memoryCgroup(c.text); path != c.path || v1 != c.v1 {
			t.Errorf("%s: %q, %t; want %q, %t", name, path, v1, c.path, c.v1)
		}
	}
}

const someMounts = `22 1 0:20 / / rw - overlay overlay rw
30 22 0:27 /docker/x /sys/fs/cgroup/memory rw,nosuid shared:5 - cgroup cgroup rw,memory
31 22 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
`

func TestCgroupMount(t *testing.T) {
	if root, at := cgroupMount([]byte(someMounts), true); root != "/docker/x" || at != "/sys/fs/cgroup/memory" {
		t.Errorf("v1: %q at %q", root, at)
	}
	if root, at := cgroupMount([]byte(someMounts), false); root != "/" || at != "/sys/fs/cgroup/unified" {
		t.Errorf("v2: %q at %q", root, at)
	}
}

func TestOOMKills(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]uint64{
		"low 0\nhigh 0\nmax 7\noom 2\noom_kill 3\noom_group_kill 1\n": 3,
		"oom_kill_disable 0\nunder_oom 0\noom_kill 12\n":              12,
		"": 0, "oom_kill x\n": 0, "oom_kill_disable 1\n": 0,
	} {
		p := filepath.Join(dir, "events")
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := countOOM(p).kills(); got != want {
			t.Errorf("oomKills of %q = %d, want %d", text, got, want)
		}
	}
	if countOOM("").kills() != 0 || countOOM(filepath.Join(dir, "none")).kills() != 0 {
		t.Error("a missing file has kills")
	}
}

// TestOOMKillsOfGoneCgroup: on v2 the pod's cgroup tells what happened in one that
// is gone, since it began; on v1 it counts its own only.
func TestOOMKillsOfGoneCgroup(t *testing.T) {
	for name, want := range map[string]uint64{"memory.events": 2, "memory.oom_control": 0} {
		dir := t.TempDir()
		kills := func(of string, n int) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, of, name), fmt.Appendf(nil, "oom 9\noom_kill %d\n", n), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Mkdir(filepath.Join(dir, "c"), 0o700); err != nil {
			t.Fatal(err)
		}
		kills("", 3)
		kills("c", 0)
		c := countOOM(filepath.Join(dir, "c", name))
		kills("", 5)
		if got := c.kills(); got != 0 {
			t.Errorf("%s: %d kills of another container are this one's", name, got)
		}
		if err := os.RemoveAll(filepath.Join(dir, "c")); err != nil {
			t.Fatal(err)
		}
		if got := c.kills(); got != want {
			t.Errorf("%s: a container whose cgroup is gone had %d kills, want %d", name, got, want)
		}
	}
}

func FuzzCgroupText(f *testing.F) {
	f.Add("9:memory:/a\n0::/b\n", []byte(someMounts))
	f.Fuzz(func(t *testing.T, membership string, mounts []byte) {
		_, v1 := memoryCgroup(membership)
		cgroupMount(mounts, v1)
	})
}
