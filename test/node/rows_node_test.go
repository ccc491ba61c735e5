package node

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
)

// until asks again and again until ok says yes.
func (n *rowsNode) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(rowLimit); !ok(); {
		if time.Now().After(end) || n.ctx.Err() != nil {
			t.Fatalf("not within %s: %s\n%s", rowLimit, what, n.a.LogTail(40))
		}
		select {
		case <-n.ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestNodeWithoutPodNetwork: pods on the host network run before there is a pod
// network, the others say what they wait for and start when it is there; and the
// service manager hears how the daemon is.
func TestNodeWithoutPodNetwork(t *testing.T) {
	need.Have(t, need.Root)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	b := bed.Containerd(t, bed.Options{})
	must(t, b.Import(ctx))
	a, err := b.NewAgent(ctx, bed.AgentOptions{Env: []string{"WATCHDOG_USEC=400000"}})
	must(t, err)
	t.Cleanup(func() {
		_ = a.Kill()
		if t.Failed() {
			t.Log(a.LogTail(60))
		}
	})
	withNetwork, err := os.ReadFile(a.ConfigFile())
	must(t, err)
	must(t, os.WriteFile(a.ConfigFile(), []byte(withoutCIDRs(t, string(withNetwork))), 0o600))
	n := &rowsNode{ctx: ctx, b: b, a: a}
	n.write(t, "host", spec("hostNetwork: true", "command: [/podtool, sleep, forever]"))
	n.write(t, "own", spec("", "command: [/podtool, sleep, forever]"))
	must(t, a.Start(ctx))

	host := n.pod(t, "host", "running", inPhase(corev1.PodRunning))
	if host.Status.PodIP != bed.NodeIP {
		t.Errorf("on the host network the pod's address is %q", host.Status.PodIP)
	}
	n.pod(t, "own", "waiting for the network", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodPending && p.Status.Reason == "NetworkNotReady" && p.Status.Message != ""
	})
	t.Run("service manager", n.notices)
	t.Run("health", n.health)

	// SIGTERM ends the daemon and no container.
	must(t, b.WaitCatches(ctx, "podtool", int(unix.SIGTERM)))
	before, err := b.Running(ctx)
	must(t, err)
	must(t, a.Terminate(rowLimit))
	if err := a.Err(); err != nil {
		t.Errorf("after SIGTERM the daemon ended with %v", err)
	}
	must(t, os.WriteFile(a.ConfigFile(), withNetwork, 0o600))
	must(t, a.Start(ctx))
	own := n.pod(t, "own", "running", inPhase(corev1.PodRunning))
	if len(own.Status.PodIPs) != 2 {
		t.Errorf("with a network the pod has %v", own.Status.PodIPs)
	}
	after, err := b.Running(ctx)
	must(t, err)
	for id, mark := range before {
		if after[id] != mark {
			t.Errorf("container %s was %s and is %s after the daemon's restart", id, mark, after[id])
		}
	}
}

// withoutCIDRs is the configuration without addresses for pods.
func withoutCIDRs(t *testing.T, config string) string {
	t.Helper()
	var kept []string
	for line := range strings.Lines(config) {
		if !strings.Contains(line, "cidrs:") && !strings.HasPrefix(line, "podNetwork:") {
			kept = append(kept, line)
		}
	}
	text := strings.Join(kept, "")
	if text == config {
		t.Fatal("the configuration names no address: the test proves nothing")
	}
	return text
}

func (n *rowsNode) notices(t *testing.T) {
	n.until(t, "READY, WATCHDOG and STATUS are told", func() bool {
		return n.a.Notified("READY") == "1" && n.a.Notified("WATCHDOG") == "1" && n.a.Notified("STATUS") == "2 pods, 1 running"
	})
}

func (n *rowsNode) health(t *testing.T) {
	answer := func() string {
		c, err := n.dial("127.0.0.1:10248")
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		fmt.Fprint(c, "GET /healthz HTTP/1.0\r\n\r\n")
		buf := make([]byte, 4096)
		k, _ := c.Read(buf)
		head, _, _ := strings.Cut(string(buf[:k]), "\r\n")
		return head
	}
	if got := answer(); !strings.HasSuffix(got, "200 OK") {
		t.Errorf("healthz answers %q", got)
	}
	// containerd is away: not healthy, but no reason to be killed for.
	must(t, n.b.Kill())
	n.until(t, "healthz tells that containerd is away", func() bool { return strings.Contains(answer(), " 500 ") })
	must(t, n.b.StartAgain(n.ctx))
	n.until(t, "healthz tells that containerd is back", func() bool { return strings.HasSuffix(answer(), "200 OK") })
}
