package node

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// noFile is the RLIMIT_NOFILE of the containerd of TestContainerIsWhatWasAskedFor:
// no default of anybody's.
const noFile = "3210:4321"

// processLimits: the limits of a container's processes, also of one that is run
// in it later, are those that containerd was started with, since no specification
// names any.
func (n *rowsNode) processLimits(t *testing.T) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", n.b.ContainerdProcess().Pid))
	must(t, err)
	want := limitsOf(string(raw))
	// A Go program raises its own, and starts others with what it was given.
	want["Max open files"] = strings.ReplaceAll(noFile, ":", " ")
	p := n.pod(t, "limited", "running", inPhase(corev1.PodRunning))
	inside, err := n.a.CLI(n.ctx, "exec", "limited-node", "--", "cat", "/proc/self/limits")
	must(t, err)
	for what, text := range map[string]string{
		"the container":   n.logEnds(t, p, "app", 0, "that is all\n"),
		"a command in it": inside,
	} {
		has := limitsOf(text)
		for limit, value := range want {
			if has[limit] != value {
				t.Errorf("%s has %s %q, want containerd's %q", what, limit, has[limit], value)
			}
		}
	}
	client := n.b.Client(t)
	for _, name := range []string{"limited", "plain", "mighty", "hostnet"} {
		p := n.pod(t, name, "running", inPhase(corev1.PodRunning))
		c, err := client.LoadContainer(n.ctx, strings.TrimPrefix(app(p).ContainerID, "containerd://"))
		must(t, err)
		spec, err := c.Spec(n.ctx)
		must(t, err)
		if spec.Process == nil || len(spec.Process.Rlimits) > 0 {
			t.Errorf("the specification of pod %s names limits of its process", name)
		}
	}
}

// columns are what lies between the columns of /proc/PID/limits, whose names have
// spaces.
var columns = regexp.MustCompile(` {2,}`)

// limitsOf are the soft and the hard limits of a /proc/PID/limits by name.
func limitsOf(text string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(text) {
		if f := columns.Split(strings.TrimSpace(line), -1); len(f) >= 3 && strings.HasPrefix(line, "Max ") {
			all[f[0]] = f[1] + " " + f[2]
		}
	}
	return all
}
