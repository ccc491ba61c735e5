package node

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// systemdKeeps: what somebody else writes into the slice of a pod is put right, and
// after systemd has read its units anew, for which it writes what it knows of every
// cgroup, each file of pods that run says what it said.
func (n *rowsNode) systemdKeeps(t *testing.T) {
	var dirs []string
	var pods []*corev1.Pod
	for _, name := range []string{"plain", "guarant", "burst"} {
		p := n.pod(t, name, "running", inPhase(corev1.PodRunning))
		ofPod, ofContainer := n.unifiedDirs(p)
		pods, dirs = append(pods, p), append(dirs, ofContainer, ofPod, filepath.Dir(ofPod))
	}
	before := controls(t, dirs)
	for file, foreign := range map[string]string{"cpu.max": "max", "cpu.weight": "777", "memory.max": "1073741824", "pids.max": "max"} {
		must(t, os.WriteFile(filepath.Join(dirs[4], file), []byte(foreign), 0))
	}
	n.comeBack(t, before, dirs)
	// It answers the second command after it has seen to every cgroup.
	out, err := exec.CommandContext(n.ctx, "sh", "-c", "systemctl daemon-reload && systemctl show -p Version").CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl daemon-reload: %v\n%s", err, out)
	}
	n.comeBack(t, before, dirs)
	for _, p := range pods {
		n.sameContainer(t, p)
	}
}

// comeBack waits until the control files say what they said before.
func (n *rowsNode) comeBack(t *testing.T, before map[string]string, dirs []string) {
	t.Helper()
	end := time.Now().Add(rowLimit)
	for after := controls(t, dirs); !maps.Equal(after, before); after = controls(t, dirs) {
		if time.Now().After(end) || n.ctx.Err() != nil {
			maps.DeleteFunc(after, func(file, value string) bool { return before[file] == value })
			for file, value := range after {
				t.Errorf("%s is %q and stays so, want %q", file, value, before[file])
			}
			return
		}
		bed.Pause(n.ctx, 10*time.Millisecond)
	}
}

// controls are what the cgroups' files say that can be written as well as read:
// limits, weights, switches, the controllers passed on, the processes.
func controls(t *testing.T, dirs []string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range dirs {
		files, err := os.ReadDir(dir)
		must(t, err)
		for _, f := range files {
			info, err := f.Info()
			must(t, err)
			if info.Mode().Perm() != 0o644 || strings.HasSuffix(f.Name(), ".pressure") {
				continue
			}
			b, err := os.ReadFile(filepath.Join(dir, f.Name()))
			if err == nil { // not cgroup.procs of a cgroup that is threaded
				all[filepath.Join(dir, f.Name())] = strings.TrimSpace(string(b))
			}
		}
	}
	if len(all) < 100 {
		t.Fatalf("control files of %v are only %v", dirs, all)
	}
	return all
}

// oomGroup: a container ends as a whole when the kernel kills a process of it that
// is not its first, and with singleProcessOOMKill goes on without that process. The
// daemon that is told so is another one, which adopts what runs.
func (n *rowsNode) oomGroup(t *testing.T) {
	child := spec("restartPolicy: Never", "image: "+image.Shell+"\ncommand: [sh, -c, '/podtool alloc 256; echo it ended with $?; exit 5']\nresources: {limits: {memory: 32Mi}}")
	n.write(t, "oomgroup", child)
	p := n.ended(t, "oomgroup")
	if s, log := terminatedState(p), n.log(p, "app", 0); s == nil || s.ExitCode != 137 || s.Reason != "OOMKilled" || log != "" {
		t.Errorf("a container with a process out of memory ended as %+v and said %q, want all of it killed", s, log)
	}
	if testing.Short() {
		return
	}
	running := n.pod(t, "guarant", "running", inPhase(corev1.PodRunning))
	raw, err := os.ReadFile(n.a.ConfigFile())
	must(t, err)
	single := strings.Replace(string(raw), "\nclusterDomain:", "\nsingleProcessOOMKill: true\nclusterDomain:", 1)
	must(t, os.WriteFile(n.a.ConfigFile(), []byte(single), 0o600))
	must(t, n.a.Restart(n.ctx))
	n.write(t, "oomsingle", child)
	p = n.ended(t, "oomsingle")
	if s, log := terminatedState(p), n.log(p, "app", 0); s == nil || s.ExitCode != 5 || s.Reason != "Error" || !strings.HasSuffix(log, "it ended with 137\n") {
		t.Errorf("with singleProcessOOMKill it ended as %+v and said %q, want one process killed", s, log)
	}
	n.sameContainer(t, running)
}

// sameContainer: the pod's container is the one that it was.
func (n *rowsNode) sameContainer(t *testing.T, was *corev1.Pod) {
	t.Helper()
	p := n.pod(t, strings.TrimSuffix(was.Name, "-node"), "running", inPhase(corev1.PodRunning))
	if now, before := app(p), app(was); now.ContainerID != before.ContainerID || now.RestartCount != before.RestartCount {
		t.Errorf("the container of pod %s was %s, %d restarts, and is %s, %d restarts", p.Name, before.ContainerID, before.RestartCount, now.ContainerID, now.RestartCount)
	}
}
