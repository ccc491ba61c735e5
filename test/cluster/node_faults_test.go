package cluster_test

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	n.kubectl("wait", ready, "node/node", "--timeout=60s")
	t.Run("ranges", func(t *testing.T) { n.in(t).ranges() })
	t.Run("away", func(t *testing.T) { n.in(t).away() })
	t.Run("killed", func(t *testing.T) { n.in(t).killedWhileEnding() })
	t.Run("deleted", func(t *testing.T) { n.in(t).deletedNode() })
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
	n.apply(sleeper("one", ""))
	n.kubectl("wait", ready, "pod/one", "--timeout=60s")
	text := n.jsonpath("{.spec.podCIDR}", "node", "node")
	cidr, err := netip.ParsePrefix(text)
	if err != nil {
		n.t.Fatalf("the node has the range %q", text)
	}
	n.restart()
	n.apply(sleeper("two", ""))
	n.kubectl("wait", ready, "pod/two", "--timeout=60s")
	for _, name := range []string{"one", "two"} {
		ip, err := netip.ParseAddr(n.jsonpath("{.status.podIP}", "pod", name))
		if err != nil || !cidr.Contains(ip) {
			n.t.Errorf("pod %s has the address %s, not of %s: %v", name, ip, cidr, err)
		}
	}
	n.kubectl("delete", "pod", "two", "--timeout=60s")
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
	if err := n.c.APIServer.Start(n.ctx); err != nil {
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
// pods, which the control plane takes away, end.
func (n *node) deletedNode() {
	uid := n.jsonpath("{.metadata.uid}", "node", "node")
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
	n.kubectl("wait", ready, "node/node", "--timeout=60s")
	n.kubectl("delete", "pod", "one", "--ignore-not-found", "--timeout=60s")
	if out, err := n.CLI(n.ctx, "pods", "-o", "name"); err != nil || strings.Contains(out, "one") {
		n.t.Errorf("the daemon still has %q, %v", out, err)
	}
}
