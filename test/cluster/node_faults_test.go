package cluster_test

import (
	"crypto/tls"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nodeagent/internal/logind/logindtest"
	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// TestNodeFaults is a node that begins with a bootstrap token and without addresses
// for its pods, and then meets what a node meets.
func TestNodeFaults(t *testing.T) {
	n := newControlPlane(t)
	bootstrap, err := n.c.Bootstrap()
	if err != nil {
		t.Fatal(err)
	}
	n.AgentProcess = bed.Agent(t, n.bed, bed.AgentOptions{
		NoCIDRs: true, Kubelet: n.authentication() + "rotateCertificates: true\n",
		Args: []string{"--bootstrap-kubeconfig", bootstrap, "--kubeconfig", filepath.Join(n.bed.Dir(), "kubelet.conf")},
	})
	n.kubectl("wait", "--for=create", "node/node", "--timeout=60s")
	n.registered()
	t.Run("ranges", func(t *testing.T) { n.in(t).ranges() })
	t.Run("away", func(t *testing.T) { n.in(t).away() })
	t.Run("killed", func(t *testing.T) { n.in(t).killedWhileEnding() })
	t.Run("deleted", func(t *testing.T) { n.in(t).deletedNode() })
}

// TestNodeAddresses is a node whose host gets another address while it runs: its Node,
// its serving certificate and its pods on the host's network tell so, and the node API
// is reached there.
func TestNodeAddresses(t *testing.T) {
	n := newControlPlane(t)
	file, err := n.c.Node("node")
	if err != nil {
		t.Fatal(err)
	}
	n.AgentProcess = bed.Agent(t, n.bed, bed.AgentOptions{NodeIP: "0.0.0.0", Kubelet: n.authentication(), Args: []string{"--kubeconfig", file}})
	n.kubectl("wait", "--for=create", "node/node", "--timeout=60s")
	n.registered()
	const internal = `{.status.addresses[?(@.type=="InternalIP")].address}`
	if got := n.jsonpath(internal, "node", "node"); got != bed.NodeIP {
		t.Fatalf("the node is at %q", got)
	}
	n.apply(sleeper("host", "  hostNetwork: true\n"))
	n.kubectl("wait", ready, "pod/host", "--timeout=60s")

	const moved = "198.51.100.7"
	for _, argv := range [][]string{
		{"ip", "link", "add", "moved", "type", "bridge"}, {"ip", "addr", "add", moved + "/24", "dev", "moved"},
		{"ip", "link", "set", "moved", "up"}, {"ip", "route", "replace", "default", "dev", "moved"},
	} {
		if out, err := n.bed.Run(n.ctx, argv...); err != nil {
			t.Fatalf("%v: %v\n%s", argv, err, out)
		}
	}
	n.kubectl("wait", "--for=jsonpath="+internal+"="+moved, "node/node", "--timeout=30s")
	n.kubectl("wait", "--for=jsonpath={.status.hostIP}="+moved, "pod/host", "--timeout=30s")
	n.kubectl("wait", "--for=jsonpath={.status.podIP}="+moved, "pod/host", "--timeout=30s")
	if got := n.kubectl("exec", "host", "--", "/bin/sh", "-c", "echo $((6*7))"); got != "42\n" {
		t.Errorf("at its new address the node answers %q", got)
	}
	for limit := time.Now().Add(30 * time.Second); !n.names(t, moved); {
		if time.Now().After(limit) {
			t.Fatal("the serving certificate does not name the new address")
		}
	}
	if _, err := n.bed.Run(n.ctx, "ip", "route", "del", "default", "dev", "moved"); err != nil {
		t.Fatal(err)
	}
	n.apply(sleeper("after", "")) // while it is read in vain
	n.kubectl("wait", ready, "pod/after", "--timeout=60s")
	if got := n.jsonpath(internal, "node", "node"); got != moved {
		t.Errorf("without a default route the node is at %q", got)
	}
}

// names tells whether the certificate of the node API names the address.
func (n *node) names(t *testing.T, address string) bool {
	t.Helper()
	conn, err := n.bed.Connect(n.ctx, "tcp", net.JoinHostPort(address, "10250"))
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // it is looked at, not believed
	defer c.Close()
	if err := c.HandshakeContext(n.ctx); err != nil {
		t.Fatal(err)
	}
	return c.ConnectionState().PeerCertificates[0].VerifyHostname(address) == nil
}

// TestNodeShutdown is a node whose machine goes down: its pods end group by group with
// kubelet's words, it takes no new ones, and the machine goes last. Before, a shutdown
// is called off.
func TestNodeShutdown(t *testing.T) {
	n := newControlPlane(t)
	file, err := n.c.Node("node")
	if err != nil {
		t.Fatal(err)
	}
	machine := logindtest.New(t, time.Hour)
	n.AgentProcess = bed.Agent(t, n.bed, bed.AgentOptions{
		Kubelet: n.authentication() + "shutdownGracePeriod: 60s\nshutdownGracePeriodCriticalPods: 30s\n",
		Env:     []string{"DBUS_SYSTEM_BUS_ADDRESS=" + machine.Address}, Args: []string{"--kubeconfig", file},
	})
	n.kubectl("wait", "--for=create", "node/node", "--timeout=60s")
	n.registered()
	const notReady, ended = `--for=condition=Ready=False`, `--for=jsonpath={.status.reason}=Terminated`
	machine.Prepare(true)
	n.kubectl("wait", notReady, "node/node", "--timeout=30s")
	if got := n.jsonpath(`{.status.conditions[?(@.type=="Ready")].message}`, "node", "node"); got != "node is shutting down" {
		t.Errorf("the node is not ready because %q", got)
	}
	machine.Prepare(false)
	n.kubectl("wait", ready, "node/node", "--timeout=30s")

	n.apply(sleeper("usual", "") + "---" + sleeper("critical", "  priorityClassName: system-node-critical\n"))
	n.kubectl("wait", ready, "pod/usual", "pod/critical", "--timeout=60s")
	released := machine.Released()
	machine.Prepare(true)
	n.kubectl("wait", ended, "pod/critical", "--timeout=60s")
	for _, name := range []string{"usual", "critical"} {
		if got := n.jsonpath(`{.status.phase} {.status.message} {.status.conditions[?(@.type=="DisruptionTarget")].reason}`, "pod", name); got !=
			"Failed Pod was terminated in response to imminent node shutdown. TerminationByKubelet" {
			t.Errorf("pod %s is told as %s", name, got)
		}
	}
	usual, critical := n.finished("usual"), n.finished("critical")
	if critical.Before(usual) {
		t.Errorf("the critical pod ended at %s, before the usual one at %s", critical, usual)
	}
	select {
	case <-released:
	case <-time.After(limit):
		t.Error("the machine waits although all pods have ended")
	}
	n.apply(strings.Replace(sleeper("late", ""), "spec:", "spec:\n  nodeName: node\n  tolerations: [{operator: Exists}]", 1))
	n.kubectl("wait", "--for=jsonpath={.status.reason}=NodeShutdown", "pod/late", "--timeout=30s")
	if got := n.kubectl("get", "events", "-A", "--field-selector", "reason=NodeShutdown", "-o", "jsonpath={.items[*].message}"); !strings.Contains(got, "shutdown cancellation") {
		t.Errorf("events tell %q", got)
	}
}

// finished is when the pod's container ended.
func (n *node) finished(name string) time.Time {
	n.t.Helper()
	at, err := time.Parse(time.RFC3339, n.jsonpath("{.status.containerStatuses[0].state.terminated.finishedAt}", "pod", name))
	if err != nil {
		n.t.Fatal(err)
	}
	return at
}

func sleeper(name, more string) string {
	return `
apiVersion: v1
kind: Pod
metadata: {name: ` + name + `}
spec:
  terminationGracePeriodSeconds: 2
` + more + `  containers: [{name: c, image: ` + image.Shell + `, imagePullPolicy: Never, command: [/bin/sleep, "100000"]}]
`
}

// ranges: pods have addresses of the Node's range, also after a restart.
func (n *node) ranges() {
	n.ranged("one")
	n.restart()
	n.ranged("two")
	n.kubectl("delete", "pod", "two", "--timeout=60s")
}

// ranged makes a pod, which gets an address of the Node's range.
func (n *node) ranged(name string) {
	n.apply(sleeper(name, ""))
	n.kubectl("wait", ready, "pod/"+name, "--timeout=60s")
	text := n.jsonpath("{.spec.podCIDR}", "node", "node")
	cidr, err := netip.ParsePrefix(text)
	if err != nil {
		n.t.Fatalf("the node has the range %q", text)
	}
	if ip, err := netip.ParseAddr(n.jsonpath("{.status.podIP}", "pod", name)); err != nil || !cidr.Contains(ip) {
		n.t.Errorf("pod %s has the address %s, not of %s: %v", name, ip, cidr, err)
	}
}

// away: without an API server pods stay, a manifest is obeyed, a daemon that starts
// anew takes everything up, and what happened is told when the server is back.
func (n *node) away() {
	id := n.jsonpath("{.status.containerStatuses[0].containerID}", "pod", "one")
	if err := n.c.APIServer.Kill(); err != nil {
		n.t.Fatal(err)
	}
	n.restart()
	if err := n.WriteManifest("alone", sleeper("alone", "")); err != nil {
		n.t.Fatal(err)
	}
	if err := n.WaitPhase(n.ctx, "default/alone-node", "Running"); err != nil {
		n.t.Fatal(err)
	}
	if err := n.WaitPhase(n.ctx, "default/one", "Running"); err != nil {
		n.t.Errorf("a pod of the API server, after a restart without it: %v", err)
	}
	if err := n.c.ServerBack(n.ctx); err != nil {
		n.t.Fatal(err)
	}
	n.kubectl("wait", "--for=create", "pod/alone-node", "--timeout=90s")
	n.kubectl("wait", ready, "pod/alone-node", "pod/one", "node/node", "--timeout=90s")
	if now := n.jsonpath("{.status.containerStatuses[0].containerID}", "pod", "one"); now != id {
		n.t.Errorf("the pod's container is %s, before %s", now, id)
	}
	if err := n.RemoveManifest("alone"); err != nil {
		n.t.Fatal(err)
	}
	n.kubectl("wait", "--for=delete", "pod/alone-node", "--timeout=60s")
}

// killedWhileEnding: a daemon that dies while a pod ends leaves it to the next one,
// to the final delete.
func (n *node) killedWhileEnding() {
	n.apply(sleeper("ending", ""))
	n.kubectl("wait", ready, "pod/ending", "--timeout=60s")
	n.kubectl("delete", "pod", "ending", "--wait=false")
	n.restart()
	n.kubectl("wait", "--for=delete", "pod/ending", "--timeout=60s")
}

// deletedNode: a Node that somebody deletes is registered again at once, and its
// pods, which the control plane takes away, end. The new one has another range of
// pods' addresses, which is taken when no pod has an address of the old one.
func (n *node) deletedNode() {
	before := n.jsonpath("{.spec.podCIDR}", "node", "node")
	uid := n.jsonpath("{.metadata.uid}", "node", "node")
	// The controllers give ranges out one after the other: the next is another's.
	n.apply("apiVersion: v1\nkind: Node\nmetadata: {name: other}\n")
	n.kubectl("wait", "--for=jsonpath={.spec.podCIDR}", "node/other", "--timeout=60s")
	n.kubectl("delete", "node", "other")
	begun := time.Now()
	n.kubectl("delete", "node", "node")
	for deadline := time.Now().Add(time.Minute); ; {
		got, err := n.c.Kubectl(n.ctx, "get", "node", "node", "--ignore-not-found", "-o", "jsonpath={.metadata.uid}")
		if err == nil && got != "" && got != uid {
			break
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("the node is %q, %v; it was %s", got, err, uid)
		}
	}
	took := time.Since(begun)
	n.t.Logf("figure: a Node that was deleted is registered again %.2f s later", took.Seconds())
	if took > need.Slow(5*time.Second) {
		n.t.Errorf("a Node that was deleted is registered again after %s", took)
	}
	n.kubectl("wait", "--for=jsonpath={.spec.podCIDR}", "node/node", "--timeout=60s")
	if now := n.jsonpath("{.spec.podCIDR}", "node", "node"); now == before {
		n.t.Fatalf("the new Node has the range of the old one, %s: there is nothing to see", now)
	}
	n.kubectl("wait", "--for=condition=Ready=False", "node/node", "--timeout=60s")
	if why := n.jsonpath(`{.status.conditions[?(@.type=="Ready")].message}`, "node", "node"); !strings.Contains(why, "no pod begins until these are gone") {
		n.t.Errorf("while a pod has an address of the old range the node says %q", why)
	}
	n.kubectl("delete", "pod", "one", "--ignore-not-found", "--timeout=60s")
	n.registered()
	n.ranged("anew")
	if out, err := n.CLI(n.ctx, "pods", "-o", "name"); err != nil || strings.Contains(out, "one") {
		n.t.Errorf("the daemon still has %q, %v", out, err)
	}
}
