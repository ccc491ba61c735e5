package machine_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
	"nodeagent/test/image"
	"nodeagent/test/machine/guest"
)

// rebootPods is how many pods run on when the node reboots.
const rebootPods = 20

// rebootLimit is how long they may take on a host, from the moment at which
// containerd serves; a guest gets it times its slowness.
const rebootLimit = 30 * time.Second

// TestReboot: after a reboot, in order or by a power cut, every pod that should
// run runs again, those that are done are not run again, and nothing of the boot
// before is left.
func TestReboot(t *testing.T) {
	t.Parallel()
	n := newUnitNode(t, 30*time.Minute, guest.Options{Durable: true})
	ctx, g := n.ctx, n.g
	factor := n.slowness()
	manifests := map[string]string{
		"ok":   unitManifest("ok", "Never", "echo ran; exit 0", unconfined),
		"bad":  unitManifest("bad", "Never", "echo ran; exit 7", unconfined),
		"half": unitManifest("half", "OnFailure", "echo ran; exit 0", unconfined),
		"busy": unitManifest("busy", "Never", "echo ran; "+forever, unconfined),
	}
	for i := range rebootPods {
		name := fmt.Sprintf("p%02d", i)
		manifests[name] = unitManifest(name, "Always", "echo up; "+forever, unconfined)
	}
	n.manifests(manifests)
	want := map[string]string{"ok": "Succeeded", "bad": "Failed", "half": "Succeeded", "busy": "Running"}
	for i := range rebootPods {
		want[fmt.Sprintf("p%02d", i)] = "Running"
	}
	n.awaitPhases(10*time.Minute, want)
	n.noStale()

	for _, how := range []struct {
		name string
		do   func() error
	}{
		{"Reboot", func() error { return g.Reboot(ctx) }},
		{"PowerCut", func() error {
			n.sh("sync") // what is lost without it is the matter of the power loss tests
			if err := g.PowerCut(); err != nil {
				return err
			}
			return g.PowerOn(ctx)
		}},
	} {
		t.Run(how.name, func(t *testing.T) {
			n := n.on(t)
			if how.name == "PowerCut" { // once more one that is not done
				need.Have(t, need.Full) // every day it is the matter of TestPowerCut
				n.sh("rm /etc/kubernetes/manifests/busy.yaml")
				n.await("it is gone", time.Minute, func() bool { _, there := n.pods()["busy"]; return !there })
				n.manifest("busy", "Never", "echo ran; "+forever)
				n.awaitPhases(time.Minute, map[string]string{"busy": "Running"})
			}
			before := n.pods()
			if err := how.do(); err != nil {
				t.Fatal(err)
			}
			n.await("the daemon is ready", 2*time.Minute, n.ready)
			want["busy"] = "Failed"
			n.awaitPhases(10*time.Minute, want)
			n.seen(10*time.Minute, func(pods map[string]*corev1.Pod) bool { return areOthers(pods, before) })
			n.await("other containers run in place of those before", time.Minute, func() bool { return n.again(before) })
			n.rebooted(before, factor)
			n.noStale()
		})
	}
}

// areOthers tells whether other containers run in the pods that should run.
func areOthers(pods map[string]*corev1.Pod, before map[string]unitPod) bool {
	for name := range before {
		if !strings.HasPrefix(name, "p") {
			continue
		}
		p := pods[name]
		if p == nil || len(p.Status.ContainerStatuses) == 0 {
			return false
		}
		s := &p.Status.ContainerStatuses[0]
		oldID, _, _, _ := before[name].last()
		if s.State.Running == nil || strings.HasSuffix(s.ContainerID, oldID) {
			return false
		}
	}
	return true
}

// again tells that every pod that should run runs in a container of this boot:
// its phase is Running from the moment at which the daemon knows it.
func (n *unitNode) again(before map[string]unitPod) bool {
	n.Helper()
	pods, err := n.look()
	n.wrong = nil
	if err != nil {
		n.wrong = []string{err.Error()}
	}
	for name, p := range pods {
		id, state, _, _ := p.last()
		if oldID, _, _, _ := before[name].last(); strings.HasPrefix(name, "p") && (id == oldID || state != "Running") {
			n.wrong = append(n.wrong, name+" is "+state)
		}
	}
	return len(n.wrong) == 0
}

// rebooted looks at the pods after a reboot.
func (n *unitNode) rebooted(before map[string]unitPod, factor float64) {
	n.Helper()
	now := n.pods()
	served := n.wall("containerd.service")
	var last time.Time
	for name, p := range now {
		id, state, _, code := p.last()
		oldID, _, _, oldCode := before[name].last()
		switch name {
		case "ok", "bad", "half":
			if id != oldID || code != oldCode {
				n.Errorf("%s was container %s with exit code %d and is %s with %d", name, oldID, oldCode, id, code)
			}
		case "busy":
			// In order, TERM reaches it and it may still be seen to end; else
			// nobody knows how it ended.
			known := code == 0 && state == "Exited" || code == 143
			if reason := p.Containers[0].Reason; !known && (code != 137 || reason != "ContainerStatusUnknown") {
				n.Errorf("the pod that was cut off has exit code %d, %s", code, reason)
			}
			n.Logf("the pod that was cut off has exit code %d, %s", code, p.Containers[0].Reason)
		default:
			if id == oldID || state != "Running" {
				n.Errorf("%s is container %s (%s), before %s", name, id, state, oldID)
			}
			for _, c := range p.Containers {
				if c.ID == id && c.StartedAt.After(last) {
					last = c.StartedAt
				}
			}
		}
	}
	for _, name := range []string{"ok", "bad", "half", "busy"} {
		if got := n.sh("cat /var/log/pods/default_" + name + "-guest_*/main/*.log | grep -c ran"); got != "1" {
			n.Errorf("%s ran %s times", name, got)
		}
	}
	took := last.Sub(served)
	limit := time.Duration(float64(rebootLimit) * factor)
	guest.Note(n, "%d pods were back %.1f s after containerd served (limit %.0f s: %s times %.1f)", rebootPods, took.Seconds(), limit.Seconds(), rebootLimit, factor)
	if took > limit || took <= 0 {
		n.Errorf("that is not within %s", limit)
	}
	serves, started := n.micros("containerd.service", "ActiveEnter"), n.micros("nodeagent.service", "ExecMainStart")
	if serves >= started {
		n.Error("the daemon was started before containerd serves")
	}
}

// wall is when a unit became active.
func (n *unitNode) wall(unit string) time.Time {
	n.Helper()
	out := strings.Fields(n.sh("systemctl show --value -p ActiveEnterTimestampMonotonic " + unit + "; cut -d' ' -f1 /proc/uptime; date +%s%N"))
	active, err1 := strconv.ParseFloat(out[0], 64)
	uptime, err2 := strconv.ParseFloat(out[1], 64)
	now, err3 := strconv.ParseInt(out[2], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil {
		n.Fatalf("times: %q", out)
	}
	return time.Unix(0, now).Add(-time.Duration((uptime - active/1e6) * 1e9))
}

// micros is when something of a unit happened, in microseconds since the boot.
func (n *unitNode) micros(unit, what string) int64 {
	n.Helper()
	out := n.sh("systemctl show --value -p " + what + "TimestampMonotonic " + unit)
	at, err := strconv.ParseInt(out, 10, 64)
	if err != nil {
		n.Fatalf("when %s of %s was: %q", what, unit, out)
	}
	return at
}

// noStale waits until every thing on the node belongs to a pod that is there.
func (n *unitNode) noStale() {
	n.Helper()
	n.await("nothing is on the node that belongs to no pod", 3*time.Minute, func() bool {
		n.wrong = n.stale()
		return len(n.wrong) == 0
	})
}

// stale is what belongs to no pod, or to two.
func (n *unitNode) stale() (found []string) {
	n.Helper()
	say := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	pods := n.pods()
	uids, ids, sandboxes, live := map[string]bool{}, map[string]bool{}, map[string]bool{}, 0
	addrs := map[string]string{}
	for name, p := range pods {
		for _, c := range p.Containers {
			ids[c.ID], sandboxes[c.SandboxID] = true, true
		}
		if p.Phase == "Running" {
			live++
			for _, ip := range p.IPs {
				if other, twice := addrs[ip]; twice {
					say("%s and %s both have %s", name, other, ip)
				}
				addrs[ip] = name
			}
		}
	}
	for _, f := range strings.Fields(n.sh("cat /etc/kubernetes/manifests/*.yaml >/dev/null; ls /var/lib/kubelet/pods")) {
		uids[f] = true
	}
	if len(addrs) != 2*live || len(uids) != len(pods) {
		say("%d running pods have %d addresses; %d pods have %d directories", live, len(addrs), len(pods), len(uids))
	}
	for what, script := range map[string]string{
		"network namespaces": "ls /run/netns",
		"bridge ports":       "ip -o link show master nodeagent0",
		"addresses kept":     "ls /run/nodeagent/podnet",
		"pod cgroups":        "find /sys/fs/cgroup/kubepods.slice -maxdepth 2 -type d -name '*-pod*.slice'",
		"pins":               "ls /run/nodeagent/ns",
	} {
		if lines := nonEmptyLines(n.sh(script + " || true")); len(lines) != live {
			say("%d %s for %d running pods: %v", len(lines), what, live, lines)
		}
	}
	// A pod that is done keeps its shim for as long as it is there.
	if shims := nonEmptyLines(n.sh("pgrep -af '^[^ ]*nodeagent-shim '")); len(shims) < live || len(shims) > len(pods) {
		say("%d shims for %d pods, of which %d run: %v", len(shims), len(pods), live, shims)
	}
	for what, script := range map[string]string{
		"exit records": "ls /run/nodeagent/exit | sed 's/.json//'",
		"snapshots":    "ctr -n k8s.io snapshots ls | awk '$NF == \"Active\" {print $1}'",
	} {
		for _, id := range nonEmptyLines(n.sh(script)) {
			if !ids[id] {
				say("%s has %s, which is no container of a pod", what, id)
			}
		}
	}
	if logs := nonEmptyLines(n.sh("ls /var/log/pods")); len(logs) != len(pods) {
		say("%d log directories for %d pods: %v", len(logs), len(pods), logs)
	}
	if leases := nonEmptyLines(n.sh("ctr -n k8s.io leases ls -q")); len(leases) > 0 {
		say("leases: %v", leases)
	}
	// A sandbox is kept for as long as a container of it is, and of each container
	// the run that is and the one before.
	for _, id := range nonEmptyLines(n.sh("ctr -n k8s.io containers ls -q")) {
		if !ids[id] && !sandboxes[id] {
			say("the record %s is neither a pod's container nor the sandbox of one", id)
		}
	}
	if len(sandboxes) > 2*len(pods) || len(ids) > 2*len(pods) {
		say("%d sandboxes and %d containers for %d pods", len(sandboxes), len(ids), len(pods))
	}
	return found
}

func nonEmptyLines(s string) []string {
	return slices.DeleteFunc(strings.Split(s, "\n"), func(l string) bool { return strings.TrimSpace(l) == "" })
}

// floorPods is how many pods at once tell how much slower the guest is.
const floorPods = 4

// slowness is how much longer the least that a pod costs (test/floor) takes in
// the guest than on the host.
func (n *unitNode) slowness() float64 {
	n.Helper()
	argv := []string{"-n", "1", "-many", strconv.Itoa(floorPods), "-parallel", strconv.Itoa(floorPods)}
	there := floorTime(n.T, n.sh("/opt/nodeagent/built/floor -address /run/containerd/containerd.sock -image "+image.Example+
		" -cgroup /floor "+strings.Join(argv, " ")+" /podtool sleep forever"))
	b := bed.Containerd(n.T, bed.Options{Stock: true, Private: true})
	if err := b.Import(n.ctx); err != nil {
		n.Fatal(err)
	}
	bin := filepath.Join(n.TempDir(), "floor")
	if out, err := exec.CommandContext(n.ctx, "go", "build", "-o", bin, "nodeagent/test/floor").CombinedOutput(); err != nil {
		n.Fatalf("%v\n%s", err, out)
	}
	out, err := b.Run(n.ctx, append([]string{bin, "-address", b.Address(), "-image", image.Example, "-cgroup", b.CgroupRoot()},
		append(argv, "/podtool", "sleep", "forever")...)...)
	if err != nil {
		n.Fatal(err)
	}
	here := floorTime(n.T, out)
	n.Logf("the floor of %d pods is %.2f s in the guest and %.2f s on the host", floorPods, there, here)
	n.sh("rmdir /sys/fs/cgroup/floor 2>/dev/null || true")
	return max(1, there/here)
}

func floorTime(t *testing.T, out string) float64 {
	t.Helper()
	var r struct{ CreateMany float64 }
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.CreateMany <= 0 {
		t.Fatalf("the floor says %q, %v", out, err)
	}
	return r.CreateMany
}
