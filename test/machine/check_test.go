package machine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeagent/test/machine/guest"
)

// checkNode is a guest with everything that the daemon needs, as an operator
// would have installed it; the daemon itself does not run.
type checkNode struct {
	g   *guest.Guest
	ctx context.Context
}

const checkConfig = `apiVersion: nodeagent/v1alpha1
kind: NodeAgentConfiguration
podNetwork:
  cidrs: [10.244.0.0/24]
`

const checkContainerd = `[Unit]
After=network.target
[Service]
Type=notify
ExecStart=/usr/local/bin/containerd
Delegate=yes
KillMode=process
LimitNOFILE=infinity
TasksMax=infinity
[Install]
WantedBy=multi-user.target
`

const checkInstall = `
install -m 755 /opt/nodeagent/tools/containerd /opt/nodeagent/tools/containerd-shim-runc-v2 /opt/nodeagent/tools/ctr /usr/local/bin/
install -m 755 /opt/nodeagent/tools/runc /usr/local/sbin/
install -m 755 /opt/nodeagent/bin/containerd-shim-nodeagent-v1 /usr/local/bin/
cd /opt/nodeagent/tree/systemd
install -m 644 nodeagent.service /etc/systemd/system/
install -D -m 644 tmpfiles.d/nodeagent.conf /etc/tmpfiles.d/nodeagent.conf
install -D -m 644 sysctl.d/90-nodeagent.conf /etc/sysctl.d/90-nodeagent.conf
install -D -m 644 modules-load.d/nodeagent.conf /etc/modules-load.d/nodeagent.conf
systemctl restart systemd-modules-load
systemd-tmpfiles --create
/lib/systemd/systemd-sysctl
systemctl daemon-reload
systemctl enable --now containerd
systemctl enable nodeagent
`

// newCheckNode brings the verb into a guest; install adds all the rest.
func newCheckNode(t *testing.T, o guest.Options) *checkNode {
	t.Helper()
	g := guest.Start(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	n := &checkNode{g, ctx}
	if err := g.Programs(ctx); err != nil {
		t.Fatal(err)
	}
	n.sh(t, "install -m 755 /opt/nodeagent/bin/nodeagent /usr/local/bin/")
	n.write(t, "/etc/nodeagent/config.yaml", checkConfig)
	return n
}

func (n *checkNode) install(t *testing.T) {
	t.Helper()
	n.write(t, "/etc/systemd/system/containerd.service", checkContainerd)
	n.sh(t, checkInstall)
}

func (n *checkNode) sh(t *testing.T, script string) string {
	t.Helper()
	out, err := n.g.Shell(n.ctx, script)
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return out
}

func (n *checkNode) write(t *testing.T, path, text string) {
	t.Helper()
	if err := n.g.Write(n.ctx, path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// checked is what the verb found, by ID.
type checked map[string]string

// check runs the verb, whose exit code must fit what it found.
func (n *checkNode) check(t *testing.T, args ...string) checked {
	t.Helper()
	var out bytes.Buffer
	argv := append([]string{"sh", "-c", `exec nodeagent check --config /etc/nodeagent/config.yaml -o json "$@" 2>/dev/null`, "check"}, args...)
	began := time.Now()
	code, err := n.g.Exec(n.ctx, guest.Command{Argv: argv, Output: &out})
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		Findings []struct{ ID, Severity, Seen string }
		Unseen   []struct{ What, Why string }
		Errors   int
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	if want := map[bool]int{true: 3}[r.Errors > 0]; code != want {
		t.Errorf("check ended with %d, want %d", code, want)
	}
	if len(r.Unseen) > 0 {
		t.Errorf("root does not see %v", r.Unseen)
	}
	found := checked{}
	for _, f := range r.Findings {
		found[f.ID] = f.Seen
	}
	t.Logf("%.1f s: %v", time.Since(began).Seconds(), found)
	return found
}

func (c checked) ids() []string {
	var all []string
	for id := range c {
		all = append(all, id)
	}
	slices.Sort(all)
	return all
}

func wantIDs(t *testing.T, got checked, want ...string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got.ids(), want) {
		t.Errorf("found are %v, want %v", got.ids(), want)
	}
}

// guestIDs are the findings of every guest: it has no clock server, no network,
// and the tunables of its Debian.
func guestIDs() []string { return []string{"NA-NET-010", "NA-NODE-002", "NA-SYSCTL-001"} }

func TestCheckGuest(t *testing.T) {
	n := newCheckNode(t, guest.Options{})
	t.Run("bare", func(t *testing.T) {
		wantIDs(t, n.check(t), "x")
	})
	n.install(t)
	base := n.check(t)
	wantIDs(t, base, guestIDs()...)
	_ = strings.TrimSpace
}
