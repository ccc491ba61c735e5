package machine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/test/bed"
	"nodeagent/test/machine/guest"
)

// watcher prints the daemon's watch, from the moment at which its socket answers.
const watcher = `use IO::Socket::UNIX; $| = 1;
for (;;) {
	my $s = IO::Socket::UNIX->new("/run/nodeagent/nodeagent.sock");
	if ($s) { print $s "GET /v1/watch HTTP/1.0\r\n\r\n"; while (<$s>) { print } }
	select(undef, undef, undef, 0.1);
}`

// watch gives what the daemon shows to see, as it arrives here, until ctx or the
// guest's power ends.
func (n *unitNode) watch(ctx context.Context, see func(bed.Change)) {
	_, _ = n.g.Exec(ctx, guest.Command{Argv: []string{"perl", "-e", watcher}, Output: &changes{see: see}})
}

// seen waits until ok says yes to the pods that the watch has told of, by the name
// in their manifest. That costs an emulated CPU next to nothing, where a command
// costs it as much as the start of a pod. It may say yes too early, before all
// pods were told of, or at the limit: the caller looks then.
func (n *unitNode) seen(limit time.Duration, ok func(map[string]*corev1.Pod) bool) {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.ctx, limit)
	defer cancel()
	var mu sync.Mutex
	pods := map[string]*corev1.Pod{}
	n.watch(ctx, func(c bed.Change) {
		mu.Lock()
		defer mu.Unlock()
		name := strings.TrimSuffix(c.Pod.Name, "-guest")
		pods[name] = c.Pod
		if c.Gone {
			delete(pods, name)
		}
		if ok(pods) {
			cancel()
		}
	})
}

// arePhases tells whether each pod has its phase.
func arePhases(want map[string]string) func(map[string]*corev1.Pod) bool {
	return func(pods map[string]*corev1.Pod) bool {
		for name, phase := range want {
			if p := pods[name]; p == nil || string(p.Status.Phase) != phase {
				return false
			}
		}
		return true
	}
}

// changes takes the lines of a watch.
type changes struct {
	rest []byte
	see  func(bed.Change)
}

func (c *changes) Write(b []byte) (int, error) {
	c.rest = append(c.rest, b...)
	for {
		line, rest, whole := bytes.Cut(c.rest, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		var change struct {
			Type   string
			Object *corev1.Pod
		}
		if json.Unmarshal(line, &change) == nil && change.Object != nil {
			c.see(bed.Change{Gone: change.Type == "DELETED", Pod: change.Object})
		}
		c.rest = rest
	}
}
