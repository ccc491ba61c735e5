package node

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
)

// TestContainerdKilled: that containerd is gone is noticed at once; probes over the
// network, the reading of logs and the metrics go on; no container ends, but the one
// that ends by itself, which is known and runs again as soon as containerd is back.
func TestContainerdKilled(t *testing.T) {
	n := newProbeNode(t, bed.AgentOptions{})
	f := &faultNode{T: t, ctx: n.ctx, b: n.b, a: n.a}
	n.write(t, "http", healthy("", "readinessProbe: {httpGet: {port: web, path: /code/200}, periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 1}"))
	n.write(t, "tcp", healthy("", "livenessProbe: {tcpSocket: {port: web}, periodSeconds: 1, timeoutSeconds: 30, failureThreshold: 1}"))
	n.write(t, "ends", spec("", `command: [/podtool, seq, stderr, spoken, ";", sleep, forever, ends-alone]`))
	n.write(t, "stays", spec("", "command: [/podtool, sleep, forever]"))
	for _, name := range []string{"http", "tcp", "ends", "stays"} {
		n.pod(t, name, "ready", isReady)
	}
	f.oneRuns("ends-alone")
	before, err := n.b.Running(n.ctx)
	must(t, err)
	victims := f.podtools("ends-alone")
	if len(victims) != 1 {
		t.Fatalf("the processes that shall end are %v", victims)
	}
	began := time.Now()
	must(t, n.b.Kill())
	f.until("the daemon says that containerd is gone", need.Slow(2*time.Second), func() bool { return !f.healthy() })
	noticed := time.Since(began)

	_, web, none := n.total(t, "")
	must(t, unix.Kill(victims[0], unix.SIGKILL))
	if out, err := n.a.CLI(n.ctx, "logs", "ends-node"); err != nil || !strings.Contains(out, "spoken") {
		t.Errorf("without containerd the log is %q, %v", out, err)
	}
	if page, err := n.a.Get(n.ctx, "/metrics"); err != nil || !strings.Contains(string(page), "kubelet_runtime_operations_total") {
		t.Errorf("without containerd there are no metrics: %d bytes, %v", len(page), err)
	}
	f.until("probes over the network went on", 30*time.Second, func() bool {
		_, now, failed := n.total(t, "")
		if failed > none {
			t.Fatalf("%d probes over the network failed", failed-none)
		}
		return now >= web+6
	})

	must(t, n.b.StartAgain(n.ctx))
	began = time.Now()
	f.await("ends", "run again", need.Slow(2*time.Second), restarted(1))
	f.until("the daemon is healthy", need.Slow(2*time.Second), f.healthy)
	t.Logf("figure: noticed after %.2f s; when containerd was back all was right after %.2f s", noticed.Seconds(), time.Since(began).Seconds())
	after, err := n.b.Running(n.ctx)
	must(t, err)
	ended := maps.Clone(before)
	maps.DeleteFunc(ended, func(id, mark string) bool { return after[id] == mark })
	if len(ended) != 1 || !holdsPid(ended, victims[0]) {
		t.Errorf("the containers %v ended, want only that of process %d", ended, victims[0])
	}
}

// holdsPid tells whether a container's process is this one.
func holdsPid(running map[string]string, pid int) bool {
	for _, mark := range running {
		if strings.HasPrefix(mark, fmt.Sprintf("%d ", pid)) {
			return true
		}
	}
	return false
}
