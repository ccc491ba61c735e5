package cri_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	containerd "github.com/containerd/containerd/v2/client"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/pod"
	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// TestAdoptHalfMade: what a daemon left that died in the middle.
func TestAdoptHalfMade(t *testing.T) {
	n := newNode(t, bed.Options{})
	before, err := n.bed.Snapshot(t.Context())
	check(t, err)
	client := n.bed.Client(t)

	t.Run("sandbox without record", func(t *testing.T) {
		sb := n.runSandbox(n.sandboxConfig("p1"))
		n.awaitRecord(client, sb)
		n.stop()
		check(t, client.ContainerService().Delete(t.Context(), sb))
		n.start()
		s := n.Observe("p1")
		if len(s.Sandboxes) != 1 || s.Sandboxes[0].Reason != "Incomplete" || s.Sandboxes[0].State != pod.SandboxNotReady {
			t.Errorf("%+v", s)
		}
		n.removePod("p1", 0)
		n.nothingLeft(before)
	})
	t.Run("container without task", func(t *testing.T) {
		config := n.sandboxConfig("p1")
		sb := n.runSandbox(config)
		id, err := n.CreateContainer(t.Context(), sb, containerConfig("main", 0, "sleep", "forever"), config)
		check(t, err)
		n.awaitRecord(client, sb)
		n.stop()
		n.start()
		if c, ok := find(n.Observe("p1"), id); !ok || c.State != pod.ContainerCreated {
			t.Errorf("%+v", c)
		}
		n.removePod("p1", 0)
		n.nothingLeft(before)
	})
	t.Run("task not started", func(t *testing.T) {
		config := n.sandboxConfig("p1")
		sb := n.runSandbox(config)
		id, err := n.CreateContainer(t.Context(), sb, containerConfig("main", 0, "sleep", "forever"), config)
		check(t, err)
		n.awaitRecord(client, sb)
		n.stop()
		mounts, err := client.SnapshotService("overlayfs").Mounts(t.Context(), id)
		check(t, err)
		_, err = client.TaskService().Create(t.Context(), &tasks.CreateTaskRequest{ContainerID: id, Rootfs: protoMounts(mounts)})
		check(t, err)
		check(t, os.WriteFile(filepath.Join(n.cfg.RunDir, "started", id), []byte(`{"at":"2026-01-01T00:00:00Z"}`), 0o600))
		n.start()
		if c, ok := find(n.Observe("p1"), id); !ok || c.State != pod.ContainerCreated {
			t.Errorf("%+v", c)
		}
		n.removePod("p1", 0)
		n.nothingLeft(before)
	})
	t.Run("marks are gone", func(t *testing.T) {
		config := n.sandboxConfig("p1")
		sb := n.runSandbox(config)
		id := n.runContainer(sb, containerConfig("main", 0, "sleep", "forever"), config)
		was, _ := find(n.Observe("p1"), id)
		n.stop()
		check(t, os.RemoveAll(filepath.Join(n.cfg.RunDir, "started")))
		n.start()
		if c, ok := find(n.Observe("p1"), id); !ok || c.State != pod.ContainerRunning || c.Pid != was.Pid {
			t.Errorf("%+v", c)
		}
		n.removePod("p1", 5*time.Second)
		n.nothingLeft(before)
	})
}

func (n *node) awaitRecord(client *containerd.Client, id string) {
	n.t.Helper()
	for end := time.Now().Add(need.Slow(5 * time.Second)); time.Now().Before(end); {
		if _, err := client.ContainerService().Get(n.t.Context(), id); err == nil {
			return
		}
		<-time.After(5 * time.Millisecond)
	}
	n.t.Fatal("no record")
}

// TestReboot: everything that ran is dead and its exit unknown, what had ended
// before keeps its code, nothing leaks.
func TestReboot(t *testing.T) {
	n := newNode(t, bed.Options{})
	before, err := n.bed.Snapshot(t.Context())
	check(t, err)
	config := n.sandboxConfig("p1")
	sb := n.runSandbox(config)
	ended := n.runContainer(sb, containerConfig("ended", 0, "exit", "5"), config)
	runs := n.runContainer(sb, containerConfig("runs", 0, "sleep", "forever"), config)
	n.awaitExit("p1", ended, 5*time.Second)
	n.awaitDurable(ended)
	c, _ := find(n.Observe("p1"), runs)
	shim := shimPid(t, n, sb)
	n.stop()
	check(t, n.bed.Kill())
	check(t, syscall.Kill(shim, syscall.SIGKILL))
	check(t, syscall.Kill(int(c.Pid), syscall.SIGKILL))
	// The kernel's part of the reboot: mounts, and what lies in /run.
	for _, dir := range []string{filepath.Join(n.cfg.RunDir, "ns"), n.cfg.NetnsDir, n.cfg.RunDir, filepath.Join(n.bed.Dir(), "state")} {
		check(t, filepath.WalkDir(dir, func(p string, _ os.DirEntry, _ error) error {
			_ = syscall.Unmount(p, syscall.MNT_DETACH)
			return nil
		}))
		check(t, os.RemoveAll(dir))
	}
	sockets, err := filepath.Glob(filepath.Join(n.bed.Dir(), "k", strings.Repeat("?", 64)))
	check(t, err)
	for _, s := range sockets {
		check(t, os.Remove(s))
	}
	check(t, n.bed.StartAgain(t.Context()))
	n.cfg.BootID = "another"
	n.start()
	s := n.Observe("p1")
	if len(s.Sandboxes) != 1 || s.Sandboxes[0].Reason != "Rebooted" {
		t.Errorf("%+v", s.Sandboxes)
	}
	if c, _ := find(s, ended); c.State != pod.ContainerExited || c.ExitCode != 5 {
		t.Errorf("%+v", c)
	}
	if c, _ := find(s, runs); c.State != pod.ContainerExited || c.ExitCode != 137 || c.Reason != "ContainerStatusUnknown" {
		t.Errorf("%+v", c)
	}
	n.removePod("p1", 0)
	n.nothingLeft(before)
}

// TestForeignRecords: nothing without our labels is seen or touched, and
// nothing of a pod's labels reaches a record but what is known.
func TestForeignRecords(t *testing.T) {
	n := newNode(t, bed.Options{Stock: true})
	client := n.bed.Client(t)
	img, err := client.GetImage(t.Context(), image.Example)
	check(t, err)
	foreign, err := client.NewContainer(t.Context(), "foreign", containerd.WithSnapshotter("overlayfs"),
		containerd.WithNewSnapshot("foreign", img), containerd.WithNewSpec(),
		containerd.WithContainerLabels(map[string]string{pod.LabelPodUID: "p9", "io.cri-containerd.kind": "container"}))
	check(t, err)
	n.stop()
	n.start()
	if len(n.Pods()) != 0 {
		t.Errorf("pods %v", n.Pods())
	}
	config := n.sandboxConfig("p1")
	sb := n.runSandbox(config)
	id := n.runContainer(sb, containerConfig("main", 0, "sleep", "forever"), config)
	for _, id := range []string{sb, id} {
		r, err := client.ContainerService().Get(t.Context(), id)
		check(t, err)
		for k, v := range r.Labels {
			if strings.Contains(k, "containerd.io") || strings.Contains(k, "evil") || strings.Contains(v, "evil") || k == "io.cri-containerd.kind" {
				t.Errorf("label %s=%s", k, v)
			}
		}
	}
	n.removePod("p1", 0)
	if _, err := client.LoadContainer(t.Context(), "foreign"); err != nil {
		t.Error(err)
	}
	check(t, foreign.Delete(t.Context(), containerd.WithSnapshotCleanup))
}

// TestKernelSees: what a container really has, asked of itself.
func TestKernelSees(t *testing.T) {
	n := newNode(t, bed.Options{})
	config := n.sandboxConfig("p1")
	config.Hostname = "web-0"
	config.Linux.Sysctls = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shmmax": "1234567"}
	sb := n.runSandbox(config)
	cc := containerConfig("main", 0)
	cc.Image.Image = image.Shell
	cc.Command = []string{"/podtool", "sleep", "forever"}
	id := n.runContainer(sb, cc, config)
	for script, want := range map[string]string{
		"hostname":                                           "web-0",
		"cat /proc/sys/net/ipv4/ip_forward":                  "1",
		"cat /proc/sys/kernel/shmmax":                        "1234567",
		"cat /proc/self/oom_score_adj":                       "1000",
		"grep -c NoNewPrivs:.0 /proc/1/status":               "1",
		"grep Seccomp: /proc/1/status":                       "Seccomp:\t2",
		"ip link show lo | grep -c 'state UP\\|LOOPBACK,UP'": "1",
		"grep ' /dev/shm ' /proc/mounts | grep -c 'nosuid,nodev,noexec.*size=65536k'": "1",
		inOwnCgroup(id): "1",
	} {
		r, err := n.ExecSync(t.Context(), id, []string{"/bin/sh", "-c", script})
		if got := strings.TrimSpace(string(r.Stdout)); err != nil || got != want {
			t.Errorf("%s: %q %q, %v; want %q", script, got, r.Stderr, err, want)
		}
	}
	n.removePod("p1", 0)
}

// inOwnCgroup prints 1 in a container that is in its own cgroup: on v2 it has a
// cgroup namespace, and is at the root of what it sees.
func inOwnCgroup(id string) string {
	if need.Lacks(need.CgroupV2) == "" {
		return "grep -cx 0::/ /proc/1/cgroup"
	}
	return "grep pids /proc/1/cgroup | grep -c /podp1/" + id
}

// TestHostNamespaces: a pod on the host's network, IPC and PID namespaces.
func TestHostNamespaces(t *testing.T) {
	n := newNode(t, bed.Options{})
	before, err := n.bed.Snapshot(t.Context())
	check(t, err)
	host := &runtimeapi.NamespaceOption{
		Network: runtimeapi.NamespaceMode_NODE, Ipc: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_NODE,
	}
	config := n.sandboxConfig("p1")
	config.Linux.SecurityContext.NamespaceOptions = host
	sb := n.runSandbox(config)
	cc := containerConfig("main", 0, "sleep", "forever")
	cc.Linux.SecurityContext.NamespaceOptions = host
	id := n.runContainer(sb, cc, config)
	s := n.Observe("p1")
	if len(s.Sandboxes[0].Addrs) != 0 || !s.Sandboxes[0].HostNetwork || s.Sandboxes[0].State != pod.SandboxReady || s.Sandboxes[0].Netns != "" {
		t.Errorf("%+v", s.Sandboxes[0])
	}
	c, _ := find(s, id)
	for _, ns := range []string{"ipc", "pid", "uts"} {
		a, err := os.Readlink("/proc/self/ns/" + ns)
		check(t, err)
		if b, err := os.Readlink(filepath.Join("/proc", itoa(c.Pid), "ns", ns)); err != nil || a != b {
			t.Errorf("%s: %s, host %s, %v", ns, b, a, err)
		}
	}
	n.removePod("p1", 10*time.Second)
	n.nothingLeft(before)
}
