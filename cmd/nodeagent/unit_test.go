package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"nodeagent/internal/config"
)

// kubeadmConfig and kubeadmFlags are what kubeadm 1.36 writes on a node: most of it
// says nothing.
const kubeadmConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: false
  webhook:
    cacheTTL: 0s
    enabled: true
  x509:
    clientCAFile: /etc/kubernetes/pki/ca.crt
authorization:
  mode: Webhook
  webhook:
    cacheAuthorizedTTL: 0s
    cacheUnauthorizedTTL: 0s
cgroupDriver: systemd
clusterDNS:
- 10.96.0.10
clusterDomain: cluster.local
containerRuntimeEndpoint: ""
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {}
evictionPressureTransitionPeriod: 0s
fileCheckFrequency: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
httpCheckFrequency: 0s
imageMaximumGCAge: 0s
imageMinimumGCAge: 0s
kind: KubeletConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
memorySwap: {}
nodeStatusReportFrequency: 0s
nodeStatusUpdateFrequency: 0s
rotateCertificates: true
runtimeRequestTimeout: 0s
shutdownGracePeriod: 0s
shutdownGracePeriodCriticalPods: 0s
staticPodPath: /etc/kubernetes/manifests
streamingConnectionIdleTimeout: 0s
syncFrequency: 0s
volumeStatsAggPeriod: 0s
`

const kubeadmFlags = "--container-runtime-endpoint=unix:///run/containerd/containerd.sock --hostname-override=worker --node-ip=192.0.2.7 --register-with-taints=node-role.kubernetes.io/control-plane:NoSchedule"

// TestKubeadmUnit: the drop-in for kubeadm's paths starts, and reloads, a daemon that
// takes what kubeadm wrote, every flag of it, and what is in its own directory.
func TestKubeadmUnit(t *testing.T) {
	lines := unitLines(t, "../../systemd/nodeagent.service.d/10-kubeadm.conf")
	if got := lines["EnvironmentFile"]; !slices.Contains(got, "-/var/lib/kubelet/kubeadm-flags.env") {
		t.Errorf("kubeadm's flags are not read: %q", got)
	}
	dir := t.TempDir()
	dropIns := filepath.Join(dir, "config.d")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(dropIns, 0o755))
	must(os.WriteFile(filepath.Join(dropIns, "own.conf"), []byte("apiVersion: nodeagent/v1alpha1\nkind: NodeAgentConfiguration\nrunDir: /run/own\n"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(kubeadmConfig), 0o600))
	here := strings.NewReplacer("/var/lib/kubelet/config.yaml", filepath.Join(dir, "config.yaml"), "/etc/nodeagent/config.d", dropIns,
		"$KUBELET_KUBEADM_ARGS", kubeadmFlags, "$KUBELET_EXTRA_ARGS", "--max-pods=20")
	for key, verb := range map[string]string{"ExecStart": "run", "ExecReload": "reload"} {
		commands := lines[key]
		if len(commands) != 2 || commands[0] != "" {
			t.Errorf("%s does not take the place of the unit's: %q", key, commands)
			continue
		}
		argv := strings.Fields(here.Replace(commands[1]))
		if argv[0] != "/usr/local/bin/nodeagent" || argv[1] != verb {
			t.Errorf("%s is %q", key, argv)
		}
		var cfg *config.Config
		root := &cobra.Command{Use: "nodeagent"}
		root.AddCommand(judged(verb, &cfg))
		root.SetArgs(argv[1:])
		must(root.Execute())
		if c := cfg.Cluster; c == nil || c.Kubeconfig != "/etc/kubernetes/kubelet.conf" || c.Bootstrap != "/etc/kubernetes/bootstrap-kubelet.conf" || c.CertDir != "/var/lib/kubelet/pki" {
			t.Errorf("%s: the cluster is %+v", key, c)
		}
		k := cfg.Kubelet
		if cfg.NodeName != "worker" || !slices.Equal(cfg.NodeIPs, []string{"192.0.2.7"}) || k.CgroupDriver != "systemd" || k.MaxPods != 20 ||
			len(k.RegisterWithTaints) != 1 || !k.RotateCertificates || cfg.Agent.RunDir != "/run/own" {
			t.Errorf("%s: the configuration is %+v", key, cfg)
		}
		if len(cfg.Unused) != 0 {
			t.Errorf("%s: of what kubeadm writes nothing acts on %q", key, cfg.Unused)
		}
	}
}

// judged is a verb that takes the daemon's flags and reads the configuration.
func judged(verb string, cfg **config.Config) *cobra.Command {
	var flags config.Flags
	cmd := &cobra.Command{Use: verb, Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) (err error) {
		*cfg, err = config.Load(flags)
		return err
	}}
	configFlags(cmd, &flags)
	return cmd
}

// unitLines are the settings of the section Service, the only one that may be there.
func unitLines(t *testing.T, file string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#' || line == "[Service]":
		case !ok:
			t.Errorf("%s: what is %q?", file, line)
		default:
			out[key] = append(out[key], value)
		}
	}
	for key := range out {
		if !slices.Contains([]string{"EnvironmentFile", "ExecStart", "ExecReload"}, key) {
			t.Errorf("%s: the unit has no setting %s", file, key)
		}
	}
	return out
}
