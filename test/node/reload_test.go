package node

import (
	"context"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/test/bed"
)

// TestReload: the daemon takes another configuration in the same process and
// touches no pod; one that cannot be used is refused and the old one stays.
func TestReload(t *testing.T) {
	ctx, b, a := newNode(t, bed.Options{}, bed.AgentOptions{})
	must(t, a.WriteManifest("web", manifest("web", sleeper)))
	must(t, a.WaitPhase(ctx, "default/web-node", corev1.PodRunning))
	running, err := b.Running(ctx)
	must(t, err)
	good, err := os.ReadFile(a.ConfigFile())
	must(t, err)
	write := func(text string) { must(t, os.WriteFile(a.ConfigFile(), []byte(text), 0o600)) }
	with := func(line string) string { // one more field of the KubeletConfiguration
		return strings.Replace(string(good), "kind: KubeletConfiguration\n", "kind: KubeletConfiguration\n"+line+"\n", 1)
	}
	untouched := func() {
		t.Helper()
		if now, err := b.Running(ctx); err != nil || !maps.Equal(now, running) {
			t.Errorf("containers were %v and are %v, %v", running, now, err)
		}
		if comm, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(a.Pid), "comm")); err != nil || string(comm) != "nodeagent\n" {
			t.Errorf("the daemon is %q, %v", comm, err)
		}
	}
	period := func(want string) func() bool {
		return func() bool {
			doc, err := a.Get(ctx, "/v1/config")
			return err == nil && strings.Contains(string(doc), `"cpuCFSQuotaPeriod":"`+want+`"`)
		}
	}

	for name, bad := range map[string]struct{ text, says, status string }{
		"unknown field":   {with("staticPodPaht: /x"), "staticPodPaht", "staticPodPaht"},
		"no YAML":         {"{", "line 1", "line 1"},
		"another runDir":  {strings.Replace(string(good), "runDir: \"", "runDir: \"/tmp", 1), "no such file", "runDir cannot change"},
		"another cgroups": {strings.Replace(string(good), `cgroupRoot: "`, `cgroupRoot: "/x`, 1), "cgroupRoot cannot change", "cgroupRoot cannot change"},
		"a taken port":    {with("healthzPort: 10247"), "address already in use", "address already in use"},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(name, "port") {
				must(t, b.Do(func() error {
					l, err := net.Listen("tcp", "127.0.0.1:10247")
					if err == nil {
						t.Cleanup(func() { l.Close() })
					}
					return err
				}))
			}
			write(bad.text)
			defer write(string(good))
			// By signal there is no answer, so the status tells. It comes first: the
			// verb's refusal has the same words, and a signal that is still to be acted
			// on would meet what is written next.
			must(t, a.Signal(unix.SIGHUP))
			within(t, ctx, 20*time.Second, func() bool {
				status := a.Notified("STATUS")
				return strings.Contains(status, "eload refused: ") && strings.Contains(status, bad.status)
			})
			out, err := a.CLI(ctx, "reload")
			if err == nil || !strings.Contains(out+err.Error(), bad.says) {
				t.Errorf("reload: %v\n%s", err, out)
			}
			untouched()
		})
	}

	t.Run("a kubelet that came later", func(t *testing.T) {
		named(t, b, "kubelet", "read x", nil, "--root-dir", a.RootDir())
		out, err := a.CLI(ctx, "reload")
		if err == nil || !strings.Contains(out+err.Error(), "NA-AGENT-001") {
			t.Errorf("reload: %v\n%s", err, out)
		}
		untouched()
	})

	write(with("cpuCFSQuotaPeriod: 50ms"))
	if out, err := a.CLI(ctx, "reload"); err != nil {
		t.Fatalf("reload: %v\n%s", err, out)
	}
	if a.Notified("RELOADING") != "1" {
		t.Error("the service manager was not told before the answer")
	}
	within(t, ctx, 30*time.Second, period("50ms"))
	within(t, ctx, 30*time.Second, func() bool { return a.Notified("STATUS") == "1 pods, 1 running" })
	untouched()

	write(with("cpuCFSQuotaPeriod: 20ms"))
	must(t, a.Signal(unix.SIGHUP))
	within(t, ctx, 30*time.Second, period("20ms"))
	untouched()
	if a.Notified("STOPPING") != "" {
		t.Error("the service manager was told that the daemon ends")
	}
	must(t, a.Terminate(20*time.Second))
	within(t, ctx, 10*time.Second, func() bool { return a.Notified("STOPPING") == "1" })
}

// within asks ok until it says yes.
func within(t *testing.T, ctx context.Context, limit time.Duration, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within %s", limit)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
