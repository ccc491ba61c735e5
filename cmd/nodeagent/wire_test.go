package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"nodeagent/internal/config"
	"nodeagent/internal/server"
)

// TestWatchdog: the watchdog asks every loop that a daemon of this kind has, and
// nothing else; /healthz asks for the runtime, too.
func TestWatchdog(t *testing.T) {
	const (
		proxy = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n---\n"
		agent = "apiVersion: nodeagent/v1alpha1\nkind: NodeAgentConfiguration\n"
	)
	for _, x := range []struct {
		name, text string
		cluster    bool
		want       []string
	}{
		{"alone", agent, false, []string{"pods"}},
		{"in a cluster", agent, true, []string{"pods", "status", "node"}},
		{"in a cluster, with services", proxy + agent, true, []string{"pods", "status", "node", "services"}},
		{"nothing but services", agent + "proxyOnly: true\n", true, []string{"services"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			dir := t.TempDir()
			file, kubeconfig := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "kubeconfig")
			for path, text := range map[string]string{file: x.text, kubeconfig: noServer} {
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			flags := config.Flags{Config: file}
			if x.cluster {
				flags.Kubeconfig = kubeconfig
			}
			cfg, err := config.Load(flags)
			if err != nil {
				t.Fatal(err)
			}
			d, err := newDaemon(cfg, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			if d.runtime != nil {
				defer d.runtime.Close()
				if got, want := namesOf(d.checks()), append(x.want, "runtime"); !slices.Equal(got, want) {
					t.Errorf("/healthz asks %v, want %v", got, want)
				}
			}
			if got := namesOf(d.notify.Checks); !slices.Equal(got, x.want) {
				t.Errorf("the watchdog asks %v, want %v", got, x.want)
			}
		})
	}
}

func namesOf(all server.Checks) []string {
	var out []string
	for _, c := range all {
		out = append(out, c.Name)
	}
	return out
}

const noServer = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`
