package machine_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"nodeagent/test/machine/guest"
)

// TestGuest proves what every other test here stands on: a guest comes up from
// its snapshot with systemd, cgroup v2 and the host's clock, and runs commands.
func TestGuest(t *testing.T) {
	g := guest.Start(t, guest.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := g.Run(ctx, "sh", "-c", "cat /proc/1/comm; stat -fc %T /sys/fs/cgroup; uname -rm; uptime; systemctl --failed; cat /proc/self/oom_score_adj; free -m")
	if err != nil {
		t.Fatal(err)
	}
	t.Log(out)
	if !strings.HasPrefix(out, "systemd\ncgroup2fs\n") {
		t.Errorf("the guest says %q", out)
	}
}
