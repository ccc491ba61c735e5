package bed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// AgentOptions say how a daemon differs from the usual one.
type AgentOptions struct {
	// RunDir is where a real node has /run/nodeagent, on a tmpfs; default: with
	// everything else, on the disk. Who names one removes it.
	RunDir    string
	Name      string   // directory and node name; default "node"
	NodeIP    string   // --node-ip; default: the bed's NodeIP
	Manifests string   // directory of manifests; default: one of its own
	Kubelet   string   // YAML lines added to its KubeletConfiguration
	NodeAgent string   // YAML lines added to its NodeAgentConfiguration
	Proxy     string   // YAML lines of its KubeProxyConfiguration; "": it has none
	NoCIDRs   bool     // pods' addresses are from the ranges of the Node
	Driver    string   // of cgroups; default: cgroupfs
	Env       []string // NODEAGENT_FAILPOINTS=…
	Args      []string // more flags of "nodeagent run"
}

// AgentProcess is one daemon in a bed: "nodeagent run" with every path of its
// own. Killing it leaves its pods, as killing the real one does.
type AgentProcess struct {
	*Process
	Dir       string // everything of this daemon; also the root of its paths
	Manifests string // what it watches

	bed  *Bed
	opts AgentOptions
	bin  string
}

// Agent starts a daemon of the tree in the bed and waits until it is ready. It
// ends with the test, and the end of its log is shown when the test has failed.
func Agent(t testing.TB, b *Bed, o AgentOptions) *AgentProcess {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	a, err := b.NewAgent(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = a.Kill()
		if t.Failed() {
			t.Log(tail(a.Log(), 80))
		}
	})
	if err := a.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return a
}

// NewAgent builds the daemon and makes its directories and its configuration,
// but does not start it.
func (b *Bed) NewAgent(ctx context.Context, o AgentOptions) (*AgentProcess, error) {
	if o.Name == "" {
		o.Name = "node"
	}
	if o.NodeIP == "" {
		o.NodeIP = NodeIP
	}
	bin, err := Built(ctx, agentName, b.opts.Variant)
	if err != nil {
		return nil, err
	}
	a := &AgentProcess{bed: b, opts: o, bin: filepath.Join(bin, agentName), Dir: filepath.Join(b.dir, o.Name), Manifests: o.Manifests}
	if a.Manifests == "" {
		a.Manifests = filepath.Join(a.Dir, "manifests")
	}
	for _, d := range []string{a.Dir, a.Manifests, a.RunDir(), a.StateDir(), a.RootDir(), a.PodLogs()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	return a, os.WriteFile(a.ConfigFile(), []byte(a.config()), 0o600)
}

// RunDir is the daemon's run directory.
func (a *AgentProcess) RunDir() string {
	if a.opts.RunDir != "" {
		return a.opts.RunDir
	}
	return filepath.Join(a.Dir, "run")
}

// Paths of the daemon.

func (a *AgentProcess) StateDir() string   { return filepath.Join(a.Dir, "state") }
func (a *AgentProcess) RootDir() string    { return filepath.Join(a.Dir, "root") }
func (a *AgentProcess) PodLogs() string    { return filepath.Join(a.Dir, "pods") }
func (a *AgentProcess) ConfigFile() string { return filepath.Join(a.Dir, "config.yaml") }
func (a *AgentProcess) Log() string        { return filepath.Join(a.Dir, "agent.log") }
func (a *AgentProcess) Socket() string     { return filepath.Join(a.RunDir(), "nodeagent.sock") }

func (a *AgentProcess) config() string {
	proxy := ""
	if a.opts.Proxy != "" {
		proxy = "---\napiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n" + a.opts.Proxy
	}
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: %q
podLogsDir: %q
cgroupRoot: %q
cgroupDriver: %s
containerRuntimeEndpoint: %q
clusterDNS: [%q]
clusterDomain: cluster.local
%s
---
apiVersion: nodeagent/v1alpha1
kind: NodeAgentConfiguration
stateDir: %q
runDir: %q
podNetwork:
  cidrs: [%s]
%s
`, a.Manifests, a.PodLogs(), a.bed.CgroupRoot(), cmp.Or(a.opts.Driver, "cgroupfs"), "unix://"+a.bed.Address(), NodeIP, a.opts.Kubelet,
		a.StateDir(), a.RunDir(), a.cidrs(), a.opts.NodeAgent) + proxy
}

func (a *AgentProcess) cidrs() string {
	if a.opts.NoCIDRs {
		return ""
	}
	return `"10.244.0.0/23", "fd00:10:244::/64"`
}

// Launch starts the daemon without waiting for it.
func (a *AgentProcess) Launch() error {
	argv := append([]string{a.bin, "run", "--config", a.ConfigFile(), "--root-dir", a.RootDir(),
		"--hostname-override", a.opts.Name, "--node-ip", a.opts.NodeIP}, a.opts.Args...)
	p, err := a.bed.Spawn(a.opts.Name, a.Log(), a.opts.Env, confined(argv)...)
	if err != nil {
		return err
	}
	a.Process = p
	return nil
}

// Start starts the daemon and waits until it has said that it is ready.
func (a *AgentProcess) Start(ctx context.Context) error {
	if err := a.Launch(); err != nil {
		return err
	}
	return a.WaitReady(ctx)
}

// Kill ends the daemon by SIGKILL if it was started.
func (a *AgentProcess) Kill() error {
	if a.Process == nil {
		return nil
	}
	return a.Process.Kill()
}

// Restart kills the daemon if it lives, and starts it again with env in place of
// what it had.
func (a *AgentProcess) Restart(ctx context.Context, env ...string) error {
	if err := a.Kill(); err != nil {
		return err
	}
	a.opts.Env = env
	return a.Start(ctx)
}

// Stop freezes the daemon by SIGSTOP, Cont lets it go on.
func (a *AgentProcess) Stop() error { return a.Signal(unix.SIGSTOP) }
func (a *AgentProcess) Cont() error { return a.Signal(unix.SIGCONT) }

// CLI runs a verb of the daemon's binary against this daemon.
func (a *AgentProcess) CLI(ctx context.Context, args ...string) (string, error) {
	end := slices.Index(args, "--")
	if end < 0 {
		end = len(args)
	}
	args = slices.Insert(slices.Clone(args), end, "--config", a.ConfigFile())
	return a.bed.Run(ctx, append([]string{a.bin}, args...)...)
}

// WriteManifest puts a manifest into the daemon's directory as careful software
// does: a temporary file with a name that is not read, then a rename.
func (a *AgentProcess) WriteManifest(name, text string) error {
	if !strings.Contains(name, ".") {
		name += ".yaml"
	}
	tmp := filepath.Join(a.Manifests, "."+name+".tmp")
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(a.Manifests, name))
}

// RemoveManifest removes a manifest.
func (a *AgentProcess) RemoveManifest(name string) error {
	if !strings.Contains(name, ".") {
		name += ".yaml"
	}
	return os.Remove(filepath.Join(a.Manifests, name))
}

// RemoveManifests removes all of them.
func (a *AgentProcess) RemoveManifests() error {
	entries, err := os.ReadDir(a.Manifests)
	for _, e := range entries {
		err = errors.Join(err, os.Remove(filepath.Join(a.Manifests, e.Name())))
	}
	return err
}

// LogTail returns the last n lines of the daemon's log.
func (a *AgentProcess) LogTail(n int) string { return tail(a.Log(), n) }
