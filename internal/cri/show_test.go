package cri_test

import (
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
	"nodeagent/test/bed"
)

// TestShownIsOnRecord: a container is shown when its record is written, and its
// end when that is on the record, so that no power cut can take back what was
// told of it.
func TestShownIsOnRecord(t *testing.T) {
	n := newNode(t, bed.Options{})
	const pods = 6
	done := make(chan struct{})
	ended := make(chan map[string]bool)
	go func() { ended <- n.checkRecords(pods, done) }()
	for i := range pods {
		config := n.sandboxConfig(fmt.Sprintf("p%d", i))
		sb := n.runSandbox(config)
		n.runContainer(sb, containerConfig("main", 0, "exit", "7"), config)
	}
	for i := range pods {
		n.await(n.uid(fmt.Sprintf("p%d", i)), "ended", 20*time.Second, func(s pod.RuntimeState) bool {
			return len(s.Containers) == 1 && s.Containers[0].State == pod.ContainerExited
		})
	}
	close(done)
	if seen := <-ended; len(seen) != pods {
		t.Errorf("%d of %d containers were seen by the looker", len(seen), pods)
	}
	for i := range pods {
		n.removePod(types.UID(fmt.Sprintf("p%d", i)), 0)
	}
}

// checkRecords looks at the picture all the time, and at the record of whatever
// is new in it.
func (n *node) checkRecords(pods int, done <-chan struct{}) (seen map[string]bool) {
	client := n.bed.Client(n.t)
	seen, ended := map[string]bool{}, map[string]bool{}
	for {
		for i := range pods {
			for _, c := range n.Observe(n.uid(fmt.Sprintf("p%d", i))).Containers {
				over := c.State == pod.ContainerExited
				if seen[c.ID] && (ended[c.ID] || !over) {
					continue
				}
				seen[c.ID], ended[c.ID] = true, over
				r, err := client.ContainerService().Get(n.t.Context(), c.ID)
				if err != nil {
					n.t.Errorf("shown as %s: %v", c.State, err)
				} else if over && r.Labels["io.nodeagent.exit"] == "" {
					n.t.Errorf("shown as ended with %d, which is not on its record", c.ExitCode)
				}
			}
		}
		select {
		case <-done:
			return seen
		case <-time.After(100 * time.Microsecond):
		}
	}
}

// TestEndIsShownWithoutContainerd: what cannot be put on the record is shown all
// the same, and soon.
func TestEndIsShownWithoutContainerd(t *testing.T) {
	for name, stop := range map[string]func(*bed.Bed) error{"dead": (*bed.Bed).Kill, "hung": (*bed.Bed).Stop} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, bed.Options{})
			config := n.sandboxConfig("p")
			sb := n.runSandbox(config)
			id := n.runContainer(sb, containerConfig("main", 0, "exit", "7", "1s"), config)
			check(t, stop(n.bed))
			if c := n.awaitExit("p", id, 5*time.Second); c.ExitCode != 7 {
				t.Errorf("%+v", c)
			}
			if name == "dead" {
				check(t, n.bed.StartAgain(t.Context()))
			} else {
				check(t, n.bed.Cont())
			}
			n.awaitDurable(id)
			n.removePod("p", 0)
		})
	}
}
