package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go/features"

	"nodeagent/internal/config"
	"nodeagent/internal/hostcheck"
)

func TestCheckTable(t *testing.T) {
	all := hostcheck.Judge(hostcheck.Facts{
		Config: hostcheck.Config{RootDir: "/var/lib/kubelet", Invalid: "config.yaml: line 3: unknown field \"x\"\nand more \x1b[2J", Ports: []hostcheck.Port{{Number: 10250, Use: "node API: port"}}},
		Agents: []hostcheck.Process{{PID: 7, Name: "kubelet", RootDir: "/var/lib/kubelet", CgroupRoot: "/"}},
		Node:   &hostcheck.Node{Name: "n", Unsynced: true, MachineID: "x"},
	})
	golden(t, "check.txt", written(t, checkTable(all, false)))
	golden(t, "check-wide.txt", written(t, checkTable(all, true)))
}

// TestLaxer: each setting that is laxer than the default is told, and none that
// the operator did not write.
func TestLaxer(t *testing.T) {
	load := func(kubelet string) *config.Config {
		t.Helper()
		file := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(file, []byte("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"+kubelet), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := config.Load(config.Flags{Config: file})
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	if got := laxer(load("")); len(got) > 0 {
		t.Errorf("with the defaults, %v are laxer", got)
	}
	if got := laxer(load("seccompDefault: true\nfailSwapOn: true\npodPidsLimit: 100\nhealthzBindAddress: ::1\n")); len(got) > 0 {
		t.Errorf("with stricter values, %v are laxer", got)
	}
	got := laxer(load("seccompDefault: false\nfailSwapOn: false\npodPidsLimit: -1\nhealthzBindAddress: 0.0.0.0\nallowedUnsafeSysctls: [net.core.somaxconn]\n"))
	want := []string{"seccompDefault: false", "failSwapOn: false", "podPidsLimit: -1", "allowedUnsafeSysctls: [net.core.somaxconn]", "healthzBindAddress: 0.0.0.0"}
	if !slices.Equal(got, want) {
		t.Errorf("laxer are %q, want %q", got, want)
	}
}

// TestPorts: the ports are those of the configuration, and each is judged by what
// the daemon does without it.
func TestPorts(t *testing.T) {
	const (
		kubelet = "---\napiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
		proxy   = "---\napiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
		agent   = "---\napiVersion: nodeagent/v1alpha1\nkind: NodeAgentConfiguration\n"
	)
	for _, x := range []struct {
		name, text, kubeconfig string
		want                   []hostcheck.Port
	}{
		{"alone", kubelet, "", []hostcheck.Port{{Number: 10250, Use: "node API: port"}, {Number: 10248, Use: "healthzPort", Now: true}}},
		{"in a cluster, kube-proxy beside it", kubelet + "port: 10350\nhealthzPort: 0\n", "/k", []hostcheck.Port{{Number: 10350, Use: "node API: port", Now: true}}},
		{"services", proxy + "healthzBindAddress: 0.0.0.0:10356\n", "/k", []hostcheck.Port{
			{Number: 10250, Use: "node API: port", Now: true}, {Number: 10248, Use: "healthzPort", Now: true},
			{Number: 10356, Use: "services: healthzBindAddress", Now: true, Later: true}, {Number: 10249, Use: "services: metricsBindAddress", Now: true, Later: true},
		}},
		{"another program's services", proxy + "mode: none\n", "/k", []hostcheck.Port{
			{Number: 10250, Use: "node API: port", Now: true}, {Number: 10248, Use: "healthzPort", Now: true},
		}},
		{"nothing but services, and hard", agent + "proxyOnly: true\n" + proxy + "bindAddressHardFail: true\nmetricsBindAddress: '[::1]:0'\n", "/k", []hostcheck.Port{
			{Number: 10256, Use: "services: healthzBindAddress", Now: true},
		}},
	} {
		file := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(file, []byte(x.text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := config.Load(config.Flags{Config: file, Kubeconfig: x.kubeconfig})
		if err != nil {
			t.Fatalf("%s: %v", x.name, err)
		}
		if got := hostConfig(cfg, config.Flags{}).Host.Ports; !slices.Equal(got, x.want) {
			t.Errorf("%s: %+v, want %+v", x.name, got, x.want)
		}
	}
}

func TestLacks(t *testing.T) {
	yes, no := true, false
	spaces := []string{"cgroup", "ipc", "mount", "network", "pid", "user", "uts"}
	for _, x := range []struct {
		f    features.Features
		want []string
	}{
		{features.Features{}, []string{"Linux"}},
		{features.Features{Linux: &features.Linux{Namespaces: spaces, Seccomp: &features.Seccomp{Enabled: &yes}, Cgroup: &features.Cgroup{V2: &yes, Systemd: &yes}}}, nil},
		{features.Features{Linux: &features.Linux{Namespaces: spaces[1:], Seccomp: &features.Seccomp{Enabled: &no}, Cgroup: &features.Cgroup{V2: &yes}}}, []string{"seccomp", "systemd cgroups", "cgroup namespace"}},
	} {
		if got := lacks(&x.f); !slices.Equal(got, x.want) {
			t.Errorf("lacks(%+v) = %q, want %q", x.f, got, x.want)
		}
	}
}
