package cri_test

import (
	"testing"
	"time"

	"nodeagent/internal/pod"
	"nodeagent/test/bed"
)

func TestPodStartsStopsAndLeavesNothing(t *testing.T) {
	for _, o := range []bed.Options{{Stock: true}, {}} {
		name := "own shim"
		if o.Stock {
			name = "stock shim"
		}
		t.Run(name, func(t *testing.T) {
			n := newNode(t, o)
			before, err := n.bed.Snapshot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			config := n.sandboxConfig("p1")
			sb := n.runSandbox(config)
			id := n.runContainer(sb, containerConfig("main", 0, "sleep", "forever"), config)
			s := n.Observe("p1")
			c, ok := find(s, id)
			if !ok || c.State != pod.ContainerRunning || c.Pid == 0 || c.Name != "main" || c.Hash != "abcd" || c.Backoff != 10*time.Second || c.Image != "example" {
				t.Fatalf("container %+v", c)
			}
			if len(s.Sandboxes) != 1 || s.Sandboxes[0].State != pod.SandboxReady || s.Sandboxes[0].Grace != 7 || len(s.Sandboxes[0].Addrs) != 1 {
				t.Fatalf("sandboxes %+v", s.Sandboxes)
			}
			n.removePod("p1", 10*time.Second)
			if len(n.net.Held()) != 0 {
				t.Errorf("addresses left: %v", n.net.Held())
			}
			n.nothingLeft(before)
		})
	}
}
