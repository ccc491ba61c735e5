package cluster_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
	"nodeagent/test/cluster"
	"nodeagent/test/compat"
	"nodeagent/test/image"
)

// TestKubelet has the node that nodeagent is compared with run a pod, from the
// scheduler to the API server's way back to the node, and proves that it is as
// gone as everything else afterwards and left the machine as it was.
func TestKubelet(t *testing.T) {
	need.Have(t, need.Root)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	before := sysctls(t)
	b := bed.Containerd(t, bed.Options{Stock: true, Private: true, CRI: true})
	if err := b.Import(ctx); err != nil {
		t.Fatal(err)
	}
	c := cluster.Up(t, b, cluster.Options{Talk: os.Stderr})
	if _, err := c.Kubelet(ctx, "node"); err != nil {
		t.Fatal(err)
	}
	kubectl(t, ctx, c, "wait", "--for=create", "node/node", "--timeout=60s")
	kubectl(t, ctx, c, "wait", "--for=condition=Ready", "node/node", "--timeout=60s")
	kubectl(t, ctx, c, "run", "web", "--image="+image.Shell, "--command", "--", "/bin/sh", "-c", "echo hello; exec sleep 1000")
	kubectl(t, ctx, c, "wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
	if out := kubectl(t, ctx, c, "logs", "web"); out != "hello\n" {
		t.Errorf("the pod's log is %q", out)
	}
	if out := kubectl(t, ctx, c, "exec", "web", "--", "/bin/sh", "-c", "ls /var/run/secrets/kubernetes.io/serviceaccount"); !strings.Contains(out, "token") {
		t.Errorf("the pod has no token: %q", out)
	}
	if after := sysctls(t); after != before {
		t.Errorf("settings of the machine were %s and are %s", before, after)
	}
	gone(t, b)
}

func sysctls(t *testing.T) string {
	t.Helper()
	var all []string
	for _, s := range []string{"kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory", "vm/panic_on_oom"} {
		v, err := os.ReadFile("/proc/sys/" + s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, strings.TrimSpace(string(v)))
	}
	return strings.Join(all, " ")
}

// TestKubeletFlags: docs/configuration.md has each flag of kubelet, and no other.
func TestKubeletFlags(t *testing.T) {
	need.Have(t, need.Root)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tools, err := cluster.Peers(ctx, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	help, err := exec.CommandContext(ctx, filepath.Join(tools, "kubelet"), "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, rows, err := compat.ReadSettings("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{"pod-infra-container-image": true} // of older ones
	for _, m := range regexp.MustCompile(`(?m)^ +(?:-[a-z], )?--([a-z0-9-]+)`).FindAllSubmatch(help, -1) {
		there[string(m[1])] = true
	}
	delete(there, "help")
	if len(there) < 130 {
		t.Errorf("kubelet has %d flags only", len(there))
	}
	for name := range there {
		if _, ok := rows[name]; !ok {
			t.Errorf("--%s is a flag of kubelet, and docs/configuration.md says nothing of it", name)
		}
	}
	for name := range rows {
		if !there[name] {
			t.Errorf("--%s is in docs/configuration.md, and kubelet has no such flag", name)
		}
	}
}
