package node

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// TestPodFaults takes away what a pod stands on, lets a pod take what it can,
// and does wrong with manifests.
func TestPodFaults(t *testing.T) {
	n := newFaultNode(t, func(n *faultNode) bed.AgentOptions {
		return bed.AgentOptions{
			Kubelet:   fmt.Sprintf("fileCheckFrequency: 2s\npodPidsLimit: %d\ncontainerLogMaxSize: \"%d\"\ncontainerLogMaxFiles: %d\n", pidsLimit, logSize, logFiles),
			NodeAgent: n.cniDirs(),
		}
	})
	n.suffer("limits changed", (*faultNode).limitsChanged)
	n.suffer("cgroup removed", (*faultNode).cgroupRemoved)
	n.suffer("network namespace deleted", (*faultNode).netnsDeleted)
	n.suffer("interface deleted", (*faultNode).interfaceDeleted)
	n.suffer("plugin fails late", (*faultNode).pluginFails)
	n.suffer("log flooded", (*faultNode).logFlooded)
	n.suffer("pids exhausted", (*faultNode).pidsExhausted)
	n.suffer("two manifests of one name", (*faultNode).twins)
	n.suffer("manifest directory replaced", (*faultNode).directoryReplaced)
}

// cniDirs are lines of podNetwork that name directories of the test's own.
func (n *faultNode) cniDirs() string {
	return fmt.Sprintf("  cniConfDir: %q\n  cniBinDir: %q\n", filepath.Join(n.dir, "net.d"), filepath.Join(n.dir, "cni"))
}

const (
	pidsLimit = 64
	logSize   = 256 << 10
	logFiles  = 3
)

const limited = `  terminationGracePeriodSeconds: 2
  containers:
  - name: app
    image: ` + image.Example + `
    command: [/podtool, sleep, forever, limited]
    resources: {limits: {cpu: 200m, memory: 64Mi}}
`

// podCgroups returns the pod's directory in each hierarchy.
func (n *faultNode) podCgroups(p *corev1.Pod) []string {
	roots, _ := filepath.Glob("/sys/fs/cgroup/*")
	var dirs []string
	for _, r := range append(roots, "/sys/fs/cgroup") {
		for _, class := range []string{"", "burstable", "besteffort"} {
			dir := filepath.Join(r, n.b.CgroupRoot(), "kubepods", class, "pod"+string(p.UID))
			if real, err := filepath.EvalSymlinks(dir); err == nil && !slices.Contains(dirs, real) {
				dirs = append(dirs, real)
			}
		}
	}
	return dirs
}

// limits returns the pod's control files that hold its limits, with them.
func (n *faultNode) limits(p *corev1.Pod) map[string]string {
	all := map[string]string{}
	for _, dir := range n.podCgroups(p) {
		for _, name := range []string{"memory.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max", "pids.max"} {
			if b, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
				all[filepath.Join(dir, name)] = strings.TrimSpace(string(b))
			}
		}
	}
	if len(all) < 3 {
		n.Errorf("limits of pod %s are only %v", p.Name, all)
	}
	return all
}

// limitsChanged: what somebody else writes into a pod's limits is put right
// within 10 s, and nothing restarts.
func (n *faultNode) limitsChanged() {
	must(n.T, n.a.WriteManifest("victim", manifest("victim", limited)))
	p := n.ready("victim", 20*time.Second)
	before := n.limits(p)
	for file := range before {
		must(n.T, os.WriteFile(file, []byte(map[string]string{
			"memory.limit_in_bytes": "1073741824", "memory.max": "1073741824",
			"cpu.cfs_quota_us": "-1", "cpu.max": "max", "pids.max": "max",
		}[filepath.Base(file)]), 0))
	}
	for file, want := range before {
		n.until(filepath.Base(file)+" is restored", 10*time.Second, func() bool {
			b, err := os.ReadFile(file)
			return err == nil && strings.TrimSpace(string(b)) == want
		})
	}
	if p := n.ready("victim", 20*time.Second); p.Status.ContainerStatuses[0].RestartCount != 0 {
		n.Error("the container was restarted")
	}
}

// cgroupRemoved: with cgroup and processes gone, the pod runs again, limited as
// before.
func (n *faultNode) cgroupRemoved() {
	must(n.T, n.a.WriteManifest("victim", manifest("victim", limited)))
	p := n.ready("victim", 20*time.Second)
	before := n.limits(p)
	n.oneRuns("limited")
	must(n.T, n.a.Stop()) // or it restarts the container in the same cgroup
	defer func() { _ = n.a.Cont() }()
	for _, pid := range n.podtools("limited") {
		must(n.T, unix.Kill(pid, unix.SIGKILL))
	}
	dirs := n.podCgroups(p)
	n.until("the pod's cgroups are removed", 10*time.Second, func() bool {
		left := false
		for _, dir := range dirs {
			below, _ := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs"))
			for _, f := range below {
				_ = unix.Rmdir(filepath.Dir(f))
			}
			err := unix.Rmdir(dir)
			left = left || err != nil && err != unix.ENOENT
		}
		return !left
	})
	must(n.T, n.a.Cont())
	p = n.await("victim", "run again", 10*time.Second, restarted(1))
	n.oneRuns("limited")
	n.until("limits are as they were", 10*time.Second, func() bool {
		now := n.limits(p)
		for file, want := range before {
			if now[file] != want {
				return false
			}
		}
		return true
	})
}

// pinOf returns the path below PinDir of a process's network namespace.
func (n *faultNode) pinOf(pid int) string {
	n.Helper()
	var want, have unix.Stat_t
	must(n.T, unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &want))
	pins, err := os.ReadDir(n.b.PinDir())
	must(n.T, err)
	for _, e := range pins {
		if unix.Stat(filepath.Join(n.b.PinDir(), e.Name()), &have) == nil && have.Ino == want.Ino {
			return e.Name()
		}
	}
	n.Fatalf("process %d is in no pinned namespace", pid)
	return ""
}

// netnsDeleted: the pod gets a new sandbox, and the old one's address is free.
func (n *faultNode) netnsDeleted() {
	n.write("victim", "Always", "[/podtool, sleep, forever, netns-deleted]")
	first := n.ready("victim", 20*time.Second)
	n.oneRuns("netns-deleted")
	name := n.pinOf(n.podtools("netns-deleted")[0])
	must(n.T, n.b.Do(func() error {
		if err := unix.Unmount("/run/netns/"+name, unix.MNT_DETACH); err != nil {
			return err
		}
		return os.Remove("/run/netns/" + name)
	}))
	n.newNetwork(first, "netns-deleted")
}

// interfaceDeleted: the same for a pod without its eth0.
func (n *faultNode) interfaceDeleted() {
	n.write("victim", "Always", "[/podtool, sleep, forever, eth-deleted]")
	first := n.ready("victim", 20*time.Second)
	n.oneRuns("eth-deleted")
	_, err := n.b.Run(n.ctx, "nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", n.podtools("eth-deleted")[0]), "ip", "link", "del", "eth0")
	must(n.T, err)
	n.newNetwork(first, "eth-deleted")
}

// newNetwork waits until the pod runs in another sandbox.
func (n *faultNode) newNetwork(first *corev1.Pod, mark string) {
	n.Helper()
	p := n.await("victim", "run in a new sandbox", 15*time.Second, restarted(1))
	n.oneRuns(mark)
	n.pinOf(n.podtools(mark)[0])
	if p.Status.PodIP == "" || p.Status.StartTime == nil || !p.Status.StartTime.Equal(first.Status.StartTime) {
		n.Errorf("the pod is at %q since %v, was at %q since %v", p.Status.PodIP, p.Status.StartTime, first.Status.PodIP, first.Status.StartTime)
	}
	n.until("only the living sandboxes hold addresses", 10*time.Second, func() bool {
		records, err := filepath.Glob(filepath.Join(n.a.RunDir(), "podnet", "[0-9a-z]*"))
		return err == nil && len(records) == 2 // the bystander's and this one's
	})
}

// plugin makes pods get their network from the bridge plugin of the CNI
// project, in a wrapper that fails after the deed when the flag file is there.
func (n *faultNode) plugin() (flag string, held func() []string, remove func()) {
	n.Helper()
	bin, conf, ipam := filepath.Join(n.dir, "cni"), filepath.Join(n.dir, "net.d"), filepath.Join(n.dir, "ipam")
	flag = filepath.Join(n.dir, "cni-fails")
	must(n.T, os.MkdirAll(bin, 0o755))
	must(n.T, os.MkdirAll(conf, 0o755))
	must(n.T, os.WriteFile(filepath.Join(bin, "late"), []byte(`#!/bin/sh
out=$(/usr/lib/cni/bridge) || { code=$?; echo "$out"; exit $code; }
if [ "$CNI_COMMAND" = ADD ] && [ -e `+flag+` ]; then
	echo failed >> `+flag+`
	echo '{"cniVersion":"0.4.0","code":100,"msg":"told to fail"}'; exit 1
fi
echo "$out"
`), 0o755))
	must(n.T, os.Symlink("/usr/lib/cni/host-local", filepath.Join(bin, "host-local")))
	must(n.T, os.WriteFile(filepath.Join(conf, "10-late.conflist"), fmt.Appendf(nil, `{"cniVersion":"0.4.0","name":"late","plugins":[{
		"type":"late","bridge":"cni0","isGateway":true,
		"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.245.0.0/26"}]]}}]}`, ipam), 0o644))
	n.until("the plugin is in force", 20*time.Second, func() bool { return n.logged("10-late.conflist") })
	held = func() []string {
		all, _ := filepath.Glob(filepath.Join(ipam, "late", "10.245.*"))
		return all
	}
	return flag, held, func() {
		must(n.T, os.RemoveAll(conf))
		_, err := n.b.Run(n.ctx, "ip", "link", "del", "cni0") // no plugin ever does that
		must(n.T, err)
	}
}

// pluginFails: a CNI plugin that gives an address and then fails is told to
// take it back, and once it works the pod runs.
func (n *faultNode) pluginFails() {
	flag, held, remove := n.plugin()
	must(n.T, os.WriteFile(flag, nil, 0o644))
	n.write("victim", "Always", "[/podtool, sleep, forever, plugin]")
	n.until("the plugin has failed twice", 15*time.Second, func() bool {
		b, _ := os.ReadFile(flag)
		return strings.Count(string(b), "failed") >= 2
	})
	must(n.T, os.Remove(flag))
	p := n.ready("victim", 20*time.Second)
	if a := held(); len(a) != 1 || filepath.Base(a[0]) != p.Status.PodIP {
		n.Errorf("the pod is at %s and the plugin holds %v", p.Status.PodIP, a)
	}
	n.oneRuns("plugin")
	_ = n.b.WaitCatches(n.ctx, "podtool", int(unix.SIGTERM))
	must(n.T, n.a.RemoveManifest("victim"))
	n.until("the address is given back", 10*time.Second, func() bool { return len(held()) == 0 })
	remove()
}

// logFlooded: a flood takes no more of the disk than its limit and one line, at
// every moment, whoever is away; nothing but the oldest lines is lost.
func (n *faultNode) logFlooded() {
	n.write("victim", "Never", `[/podtool, flood, 3s]`)
	var dir string
	n.until("the log is there", 20*time.Second, func() bool {
		logs, _ := filepath.Glob(filepath.Join(n.a.PodLogs(), "default_victim-node_*", "app", "0.log"))
		if len(logs) == 1 {
			dir = filepath.Dir(logs[0])
		}
		return len(logs) == 1
	})
	most, samples, killed := int64(0), 0, false
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); samples++ {
		most = max(most, logBytes(dir))
		if !killed && samples > 50 {
			killed = true
			must(n.T, n.a.Restart(n.ctx))
		}
		<-time.After(2 * time.Millisecond)
	}
	p := n.await("victim", "over", 20*time.Second, func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	})
	const line = 150 // 99 bytes, newline and what the log adds
	if limit := int64(logSize*logFiles + line); most > limit || most < logSize {
		n.Errorf("up to %d bytes in %d samples, want at most %d", most, samples, limit)
	}
	log, err := bed.CheckLog(dir)
	must(n.T, err)
	if p.Status.Phase != corev1.PodSucceeded || log.Printed <= 0 || log.Next != log.Printed || log.First == 0 {
		n.Errorf("the pod is %s and its log %+v", p.Status.Phase, log)
	}
	n.Logf("%d lines, up to %d bytes in %d samples", log.Printed, most, samples)
}

// logBytes sums what the files of a directory hold. The newest is looked at
// last: a rotation meanwhile must not count it twice.
func logBytes(dir string) int64 {
	seen := map[uint64]int64{}
	entries, _ := os.ReadDir(dir)
	for _, e := range slices.Backward(entries) {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(dir, e.Name()), &st) == nil {
			seen[st.Ino] = st.Size
		}
	}
	sum := int64(0)
	for _, size := range seen {
		sum += size
	}
	return sum
}

// pidsExhausted: a pod that starts processes without end, under an init that
// never reaps, fills its own limit and nothing else.
func (n *faultNode) pidsExhausted() {
	must(n.T, n.a.WriteManifest("bomb", manifest("bomb", `  terminationGracePeriodSeconds: 2
  containers:
  - name: app
    image: `+image.Shell+`
    command: [/bin/sh, -c, "(while :; do (true) & (sleep 1000) & done) & exec sleep 1000"]
`)))
	p := n.ready("bomb", 20*time.Second)
	var file string
	for f := range n.limits(p) {
		if filepath.Base(f) == "pids.max" {
			file = filepath.Join(filepath.Dir(f), "pids.current")
		}
	}
	n.until("the limit is reached", 20*time.Second, func() bool {
		b, err := os.ReadFile(file)
		must(n.T, err)
		return strings.TrimSpace(string(b)) == fmt.Sprint(pidsLimit)
	})
	n.write("other", "Always", "[/podtool, sleep, forever]")
	n.ready("other", 10*time.Second)
	if p := n.ready("bomb", 20*time.Second); p.Status.ContainerStatuses[0].RestartCount != 0 {
		n.Errorf("the bomb was restarted: %+v", p.Status.ContainerStatuses)
	}
	must(n.T, n.a.RemoveManifest("bomb"))
	n.until("the bomb is gone", 20*time.Second, func() bool {
		_, err := os.Stat(file)
		return err != nil
	})
}

// twins: of two files with one pod name the first by name counts, the other is
// reported, nothing flaps, and it takes over when the first goes.
func (n *faultNode) twins() {
	must(n.T, n.a.WriteManifest("b-twin", onePod("twin", "Always", "[/podtool, sleep, forever, second]")))
	n.ready("twin", 20*time.Second)
	n.oneRuns("second")
	must(n.T, n.a.WriteManifest("c-twin", onePod("twin", "Always", "[/podtool, sleep, forever, third]")))
	n.until("the other file is reported", 20*time.Second, func() bool { return n.problem("c-twin.yaml") })
	if len(n.podtools("second")) != 1 || len(n.podtools("third")) != 0 {
		n.Error("a second file of its name changed a pod")
	}
	must(n.T, n.a.RemoveManifest("b-twin"))
	n.oneRuns("third")
	n.ready("twin", 20*time.Second)
	n.until("nothing is reported", 20*time.Second, func() bool { return !n.problem("c-twin.yaml") })
}

// problem tells whether the daemon reports something of a manifest.
func (n *faultNode) problem(file string) bool {
	b, err := n.a.Get(n.ctx, "/v1/problems")
	if err != nil {
		return false
	}
	var all []struct{ File string }
	must(n.T, json.Unmarshal(b, &all))
	return slices.ContainsFunc(all, func(p struct{ File string }) bool { return filepath.Base(p.File) == file })
}

// directoryReplaced: with another directory in its place the pods are those of
// the new one, and who is in both goes on.
func (n *faultNode) directoryReplaced() {
	n.write("old", "Always", "[/podtool, sleep, forever, in-old]")
	n.ready("old", 20*time.Second)
	next, last := n.a.Manifests+".next", n.a.Manifests+".last"
	must(n.T, os.Mkdir(next, 0o755))
	stay, err := os.ReadFile(filepath.Join(n.a.Manifests, "bystander.yaml"))
	must(n.T, err)
	must(n.T, os.WriteFile(filepath.Join(next, "bystander.yaml"), stay, 0o644))
	must(n.T, os.WriteFile(filepath.Join(next, "new.yaml"), []byte(onePod("new", "Always", "[/podtool, sleep, forever, in-new]")), 0o644))
	_ = n.b.WaitCatches(n.ctx, "podtool", int(unix.SIGTERM))
	must(n.T, os.Rename(n.a.Manifests, last))
	must(n.T, os.Rename(next, n.a.Manifests))
	n.ready("new", 10*time.Second)
	n.until("the pod of the old directory is gone", 30*time.Second, func() bool { return len(n.podtools("in-old")) == 0 })
	n.oneRuns("in-new")
	must(n.T, os.RemoveAll(last))
}
