package machine_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/test/machine/guest"
)

// eater is a pod of one class that takes memory when it is told to.
type eater struct {
	name      string // its class
	resources string
	step      int // MiB that it takes at a time
}

// eaters are one pod of each class, the best protected first. It takes more than
// the others, and has more than they at each moment: by size it would be the first
// to be killed. The limit of its own is more than all of them have together.
func eaters() []eater {
	return []eater{
		{"guaranteed", "{limits: {cpu: 100m, memory: 700Mi}}", 80},
		{"burstable", "{requests: {memory: 256Mi}}", 64},
		{"besteffort", "{}", 48},
	}
}

// eat takes as many MiB as each line says, in a process that keeps them, and
// answers when it has touched them all. The answer's pipe is closed by the end of
// the container's last process.
const eat = `exec 3<>/steps/NAME.did; while read -r mib; do dd if=/dev/zero bs=${mib}M count=1 2>/dev/null | (head -c 1 >/dev/null; echo took $mib >&3; exec sleep 3600) & done <>/steps/NAME.do`

// TestShortage: where the node's memory does not do for all pods, the kernel kills
// the BestEffort one first, then the Burstable one and the Guaranteed one last, and
// the pods say so. All pods stand in a slice whose limit they reach together, none
// its own; the daemon has no part in it.
func TestShortage(t *testing.T) {
	t.Parallel()
	n := newUnitNode(t, 10*time.Minute, guest.Options{})
	n.sh(`dmesg -n 1 # what the kernel says of each kill would go out by the serial port
mkdir -p /srv/steps && cd /srv/steps && for c in guaranteed burstable besteffort; do mkfifo $c.do $c.did; done
sed -i 's/^podPidsLimit: .*/&\ncgroupRoot: \/shortage/' /etc/nodeagent/config.yaml && systemctl restart nodeagent.service`)
	daemons := n.daemons()

	pods, phases := map[string]string{}, map[string]string{}
	for _, e := range eaters() {
		pods[e.name] = unitManifest(e.name, "Never", strings.ReplaceAll(eat, "NAME", e.name), "volumes: [{name: steps, hostPath: {path: /srv/steps}}]") +
			"\n    volumeMounts: [{name: steps, mountPath: /steps}]\n    resources: " + e.resources
		phases[e.name] = "Running"
	}
	n.manifests(pods)
	n.awaitPhases(2*time.Minute, phases)
	n.sh("systemctl set-property --runtime shortage.slice MemoryMax=400M; test $(cat /sys/fs/cgroup/shortage.slice/memory.max) = 419430400")

	order := n.shortage(eaters())
	if want := []string{"besteffort", "burstable", "guaranteed"}; !slices.Equal(order, want) {
		t.Errorf("the kernel's order was %v, want %v", order, want)
	}
	n.oomKilled()
	n.kernelTold()
	if now := n.daemons(); now != daemons {
		t.Errorf("systemd, containerd and the daemon were\n%s\nand are\n%s", daemons, now)
	}
}

// daemons are the processes that a shortage of the pods must not touch.
func (n *unitNode) daemons() string {
	n.Helper()
	return n.sh("systemctl show -p Id,MainPID,NRestarts containerd.service nodeagent.service")
}

// shortage has each pod take its steps in turn until the kernel has killed all of
// them, and returns in which order.
func (n *unitNode) shortage(left []eater) (order []string) {
	n.Helper()
	killed := n.kills()
	for round := 0; len(left) > 0; round++ {
		if round == 20 {
			n.Fatalf("%v took all that they could, and live", left)
		}
		for _, e := range left {
			// Who is killed closes the pipe; who is not has taken what it was told to.
			n.sh(fmt.Sprintf("cd /srv/steps; echo %d > %s.do; read -r said < %[2]s.did || true", e.step, e.name))
			now := n.kills()
			if now == killed {
				continue
			}
			killed = now
			dead := n.died(left)
			order = append(order, dead...)
			left = slices.DeleteFunc(slices.Clone(left), func(e eater) bool { return slices.Contains(dead, e.name) })
			break
		}
	}
	return order
}

// kills is how often the kernel killed somebody for the memory of all pods.
func (n *unitNode) kills() string {
	n.Helper()
	return n.sh("grep oom_kill /sys/fs/cgroup/shortage.slice/memory.events")
}

// died waits until pods among these have failed, and returns them.
func (n *unitNode) died(among []eater) (dead []string) {
	n.Helper()
	failed := func(pods map[string]*corev1.Pod) bool {
		dead = nil
		for _, e := range among {
			if p := pods[e.name]; p != nil && p.Status.Phase == corev1.PodFailed {
				dead = append(dead, e.name)
			}
		}
		return len(dead) > 0
	}
	n.seen(time.Minute, failed)
	if len(dead) == 0 {
		n.Fatalf("the kernel killed somebody, and no pod of %v failed\n%s", among, n.sh("nodeagent pods -o wide; dmesg | tail -40"))
	}
	return dead
}

// oomKilled: each pod says what ended it.
func (n *unitNode) oomKilled() {
	n.Helper()
	pods := n.pods()
	for _, e := range eaters() {
		p := pods[e.name]
		if len(p.Containers) != 1 || p.Phase != "Failed" || p.Restarts != 0 {
			n.Errorf("pod %s is %+v", e.name, p)
			continue
		}
		if _, _, _, code := p.last(); code != 137 || p.Containers[0].Reason != "OOMKilled" {
			n.Errorf("pod %s ended with %d, %q, want 137, OOMKilled", e.name, code, p.Containers[0].Reason)
		}
	}
}

// kernelTold: the kernel says that it chose among all pods, by the scores that it
// was told, and killed whole containers.
func (n *unitNode) kernelTold() {
	n.Helper()
	log := n.sh("dmesg | grep -e oom-kill: -e 'Killed process'")
	n.Log(log)
	var scores []int
	var last string
	for line := range strings.Lines(log) {
		if strings.Contains(line, "oom-kill:") && !strings.Contains(line, "oom_memcg=/shortage.slice,") {
			n.Errorf("a limit of somebody's own was hit: %s", line)
		}
		_, after, told := strings.Cut(strings.TrimSpace(line), "oom_score_adj:")
		if !told || after == last {
			continue
		}
		var score int
		if _, err := fmt.Sscan(after, &score); err != nil {
			n.Fatalf("%q: %v", line, err)
		}
		scores, last = append(scores, score), after
	}
	if len(scores) != 3 || scores[0] != 1000 || scores[1] <= 2 || scores[1] >= 1000 || scores[2] != -997 {
		n.Errorf("the scores of whom the kernel killed are %v, want 1000, one between 2 and 1000, and -997", scores)
	}
}
