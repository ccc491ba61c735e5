package machine_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/test/env"
	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
	"nodeagent/test/machine/guest"
)

// TestPowerCut kills the guest's process at random moments while pods come, end
// and go, and boots the same disk: containerd and the daemon start, what the
// daemon had shown stays true, and nothing of the boot before is left. POWER_CUTS
// sets the number of cuts (3), and with it how long it may take; POWER_SEED repeats a row of moments as far as a
// machine can.
func TestPowerCut(t *testing.T) {
	need.Have(t, need.Root, need.Machine) // before the seed is told: the reason of a skip comes first
	t.Parallel()
	cuts, seed := env.Number(t, "POWER_CUTS", 3), env.Seed(t, "POWER_SEED")
	n := newUnitNode(t, guest.CutsTime(cuts), guest.Options{Durable: true})
	p := &outage{
		unitNode: n, rng: rand.New(rand.NewPCG(seed, 0)),
		ledger: bed.NewLedger(), wanted: map[string]string{}, stop: func() {},
	}
	defer func() { p.stop() }()
	p.sh("sync") // of the installation; from here on only what our programs sync
	p.follow()
	for range cuts {
		p.churn()
		p.cut()
		p.settled()
		if t.Failed() {
			return
		}
	}
	p.end()
}

// outage is a node whose power is cut.
type outage struct {
	*unitNode
	rng    *rand.Rand
	ledger *bed.Ledger
	wanted map[string]string // manifests that are there: pod to kind
	puts   int
	stop   func() // ends the watch
}

// outageKinds are pods by what becomes of them: after is their phase in the end
// when the power was cut in between.
var outageKinds = map[string]struct{ policy, script, after string }{
	"stays":   {"Always", forever, "Running"},
	"crashes": {"Always", "exit 1", "Running"},
	"fails":   {"Never", "sleep 1; exit 7", "Failed"},
	"ends":    {"Never", "exit 0", "Succeeded or Failed"},
	"tries":   {"OnFailure", "echo done", "Succeeded"},
}

// churn writes and removes manifests, then waits for any moment. The manifests
// are synced: an operator's file that is lost is no matter of the daemon.
func (p *outage) churn() {
	p.Helper()
	kinds := slices.Sorted(maps.Keys(outageKinds))
	for range 2 + p.rng.IntN(2) {
		there := slices.Sorted(maps.Keys(p.wanted))
		for _, name := range there {
			if len(p.wanted) > 7 || p.rng.IntN(6) == 0 {
				p.remove(name)
			}
		}
		all := map[string]string{}
		for range 1 + p.rng.IntN(2) {
			p.puts++
			name, kind := fmt.Sprintf("c%d", p.puts), kinds[p.rng.IntN(len(kinds))]
			p.wanted[name] = kind
			all[name] = unitManifest(name, outageKinds[kind].policy, outageKinds[kind].script, unconfined)
		}
		p.manifests(all)
		p.pause(time.Duration(p.rng.Int64N(int64(2 * time.Second))))
	}
	p.sh("sync /etc/kubernetes/manifests/*.yaml /etc/kubernetes/manifests")
	p.pause(time.Duration(p.rng.Int64N(int64(4 * time.Second))))
}

func (p *outage) remove(name string) {
	p.Helper()
	delete(p.wanted, name)
	p.sh("rm /etc/kubernetes/manifests/" + name + ".yaml")
}

func (p *outage) pause(d time.Duration) { bed.Pause(p.ctx, d) }

// cut takes the power and gives it again.
func (p *outage) cut() {
	p.Helper()
	p.ledger.Dark()
	if err := p.g.PowerCut(); err != nil {
		p.Fatal(err)
	}
	p.stop()
	began := time.Now()
	if err := p.g.PowerOn(p.ctx); err != nil {
		p.Fatal(err)
	}
	p.await("the daemon is ready", 2*time.Minute, p.ready)
	guest.Note(p, "up again after %.0f s with %d manifests", time.Since(began).Seconds(), len(p.wanted))
	p.ledger.Boot()
	p.follow()
}

// follow gives what the daemon shows to the ledger, as it arrives here: what did
// was told before the power went.
func (p *outage) follow() {
	ctx, cancel := context.WithCancel(p.ctx)
	var wg sync.WaitGroup
	wg.Go(func() { p.watch(ctx, p.ledger.See) }) // ends with the guest's power
	p.stop = func() { cancel(); wg.Wait() }
}

// areWanted tells whether every pod is what it shall become.
func (p *outage) areWanted(pods map[string]*corev1.Pod) bool {
	for name, kind := range p.wanted {
		pod := pods[name]
		if pod == nil || !strings.Contains(outageKinds[kind].after, string(pod.Status.Phase)) {
			return false
		}
		if kind == "stays" && (len(pod.Status.ContainerStatuses) == 0 || pod.Status.ContainerStatuses[0].State.Running == nil) {
			return false
		}
	}
	return len(pods) == len(p.wanted)
}

// settled waits until every pod is what it shall become, and looks at what must
// never have been seen.
func (p *outage) settled() {
	p.Helper()
	began := time.Now()
	p.seen(4*time.Minute, p.areWanted)
	p.await("every pod is what it shall be", time.Minute, func() bool {
		pods, err := p.look()
		if err != nil {
			p.wrong = []string{err.Error()}
			return false
		}
		for name, kind := range p.wanted {
			phase := pods[name].Phase
			_, state, _, _ := pods[name].last()
			if phase == "" || !strings.Contains(outageKinds[kind].after, phase) || kind == "stays" && state != "Running" {
				return false
			}
		}
		return len(pods) == len(p.wanted)
	})
	for _, s := range p.ledger.Illegal() {
		p.Error(s)
	}
	if out := p.sh("cat /sys/fs/ext4/*/errors_count; dmesg | grep -e 'EXT4-fs error' -e 'I/O error' || true"); strings.Trim(out, "0\n") != "" {
		p.Errorf("the file system has errors: %s", out)
	}
	p.Logf("pods as wanted %.0f s later, %d of %d seen to end", time.Since(began).Seconds(), p.ledger.Seen(), p.puts)
}

// end removes all pods and looks for what is left of them.
func (p *outage) end() {
	p.Helper()
	p.sh("rm /etc/kubernetes/manifests/*.yaml")
	p.seen(3*time.Minute, func(pods map[string]*corev1.Pod) bool { return len(pods) == 0 })
	p.await("all pods are gone", time.Minute, func() bool { return len(p.pods()) == 0 })
	left := p.left()
	for end := time.Now().Add(time.Minute); left != "" && time.Now().Before(end); left = p.left() {
		p.pause(time.Second)
	}
	if left != "" {
		p.Errorf("left of pods that are gone:\n%s", left)
	}
	for _, s := range p.ledger.Illegal() {
		p.Error(s)
	}
}

// left is what a node without pods must not have.
func (p *outage) left() string {
	p.Helper()
	return p.sh(`ls /run/netns /run/nodeagent/ns /run/nodeagent/exit /run/nodeagent/podnet /run/nodeagent/started /run/nodeagent/shim \
	/var/lib/kubelet/pods /var/log/pods /var/log/containers /var/lib/nodeagent/volumes 2>/dev/null | grep -v -e '^/.*:$' -e '^$' || true
ip -o link show master nodeagent0
find /sys/fs/cgroup/kubepods.slice -type d -name '*-pod*.slice'
pgrep -a containerd-shim || true
ctr -n k8s.io containers ls -q; ctr -n k8s.io leases ls -q
ctr -n k8s.io snapshots ls | tail -n +2 | grep -v ' Committed *$' || true
ls -A /var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots | grep new- || true`)
}
