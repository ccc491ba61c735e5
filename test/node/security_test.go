package node

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/test/bed"
	"nodeagent/test/image"
)

const canary = "canary-7f3a9c"

// guarded is a pod whose environment holds a secret, and whose one container
// fails again and again, so that the daemon has much to say of it.
const guarded = `  terminationGracePeriodSeconds: 2
  containers:
  - name: app
    image: ` + image.Shell + `
    command: [/bin/sh, -c, exec sleep 1000]
    env: [{name: PASSWORD, value: ` + canary + `}]
  - name: fails
    image: ` + image.Example + `
    command: [/nosuch]
    env: [{name: PASSWORD, value: ` + canary + `}]
`

// TestWhatANodeMustNotDo: nothing of ours reaches a container by descriptor or
// leaves its pod's cgroup, no socket is open to others, and no secret of a pod
// is in a log or a file of the daemon.
func TestWhatANodeMustNotDo(t *testing.T) {
	ctx, b, a := newNode(t, bed.Options{Private: true}, bed.AgentOptions{Args: []string{"-v", "9"}})
	must(t, a.WriteManifest("guarded", manifest("guarded", guarded)))
	n := &faultNode{T: t, ctx: ctx, b: b, a: a}
	p := n.await("guarded", "half up", 20*time.Second, func(p *corev1.Pod) bool {
		up, failed := false, false
		for _, c := range p.Status.ContainerStatuses {
			up = up || c.State.Running != nil
			failed = failed || c.RestartCount > 0
		}
		return up && failed
	})
	pid := 0
	n.until("the container's own program runs", 5*time.Second, func() bool { pid = hung(b); return pid != 0 })
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	must(t, err)
	if len(fds) != 3 {
		t.Errorf("the container holds descriptors %v, want 0 to 2", fds)
	}
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	must(t, err)
	for line := range strings.Lines(string(groups)) {
		if !strings.Contains(line, b.CgroupRoot()+"/kubepods/besteffort/pod"+string(p.UID)+"/") {
			t.Errorf("the container's process is in cgroup %s", line)
		}
	}
	sockets(t, b, a)
	found, err := bed.FindBytes([]byte(canary), a.Log(), b.ContainerdLog(), a.RunDir(), a.StateDir(), a.RootDir(), a.PodLogs())
	must(t, err)
	if len(found) > 0 {
		t.Errorf("a secret is in %v", found)
	}
	if log, _ := os.ReadFile(a.Log()); !strings.Contains(string(log), "nosuch") {
		t.Error("the daemon said nothing of the failing container: the test proves nothing")
	}
}

// sockets looks at every unix socket in the bed's network namespace: ours have
// names in the file system, and only root may use them.
func sockets(t *testing.T, b *bed.Bed, a *bed.AgentProcess) {
	t.Helper()
	var table []byte
	must(t, b.Do(func() (err error) { table, err = os.ReadFile("/proc/thread-self/net/unix"); return err }))
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 7 && strings.HasPrefix(f[7], "@") {
			t.Errorf("an abstract socket is open: %s", f[7])
		}
	}
	ours, err := filepath.Glob(filepath.Join(a.RunDir(), "*", "*.sock"))
	must(t, err)
	for _, s := range append(ours, a.Socket()) {
		info, err := os.Stat(s)
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("socket %s has mode %v", s, info.Mode())
		}
		c, err := net.Dial("unix", s)
		must(t, err)
		c.Close()
	}
	for _, dir := range []string{"exit", "ns", "shim", "started", "stop"} {
		info, err := os.Stat(filepath.Join(a.RunDir(), dir))
		must(t, err)
		if info.Mode().Perm() != 0o700 {
			t.Errorf("directory %s has mode %v", dir, info.Mode())
		}
	}
}
