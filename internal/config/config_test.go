package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const kubelet = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
const agent = "apiVersion: nodeagent/v1alpha1\nkind: NodeAgentConfiguration\n"

func file(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	dir, drop := t.TempDir(), t.TempDir()
	c, err := Load(Flags{
		Config: file(t, dir, "config.yaml", kubelet+"staticPodPath: /file\npodLogsDir: /file\nhealthzPort: 1\nseccompDefault: false\n---\n"+
			agent+"stateDir: /file\nrunDir: /file\n"),
		ConfigDir:        drop,
		PodManifestPath:  "/flag",
		HostnameOverride: "n",
	})
	if err != nil {
		t.Fatal(err)
	}
	if k := c.Kubelet; k.StaticPodPath != "/flag" || k.PodLogsDir != "/file" || *k.HealthzPort != 1 || *k.SeccompDefault || *k.PodPidsLimit != 4096 || c.Agent.RunDir != "/file" || c.RootDir != "/var/lib/kubelet" {
		t.Errorf("flag, file and default became %+v, %+v", k, c.Agent)
	}
	file(t, drop, "20.conf", agent+"runDir: /second\n")
	file(t, drop, "10.conf", agent+"runDir: /first\n")
	file(t, drop, "30.txt", "nonsense")
	c, err = Load(Flags{Config: filepath.Join(dir, "config.yaml"), ConfigDir: drop, HostnameOverride: "n"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Agent.RunDir != "/second" || c.Agent.StateDir != "/file" {
		t.Errorf("drop-ins became %+v", c.Agent)
	}
}

func TestDefaults(t *testing.T) {
	c, err := Load(Flags{HostnameOverride: "n"})
	if err != nil {
		t.Fatal(err)
	}
	if k := c.Kubelet; k.StaticPodPath != "/etc/kubernetes/manifests" || k.ContainerLogMaxSize != "10Mi" || *k.ContainerLogMaxFiles != 5 ||
		*k.HealthzPort != 10248 || k.HealthzBindAddress != "127.0.0.1" || !*k.SeccompDefault || c.ContainersLogsDir() != "/var/log/containers" {
		t.Errorf("the defaults are %+v", k)
	}
	c, err = Load(Flags{HostnameOverride: "n", Config: file(t, t.TempDir(), "c", kubelet+"podCIDR: 10.0.0.0/24,fd00::/64\n")})
	if err != nil || len(c.CIDRs()) != 2 {
		t.Errorf("the node's pod CIDRs became %v, %v", c.CIDRs(), err)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{kubelet + "nonsense: 1\n", `line 3: KubeletConfiguration: unknown field "nonsense"`},
		{agent + "podNetwork:\n  mtu: 1500\n  cidr: x\n", `line 5: NodeAgentConfiguration: unknown field "podNetwork.cidr"`},
		{kubelet + "podCIDR: a\npodCIDR: b\n", `line 4: field "podCIDR" is there twice`},
		{kubelet + "healthzPort: many\n", "KubeletConfiguration in the document of line 1"},
		{"kind: KubeletConfiguration\n", "unknown kind KubeletConfiguration"},
		{"a: b\n", "has no apiVersion and kind"},
		{"- a\n", "line 1: a configuration is a mapping"},
		{"a: [\n", "yaml"},
		{"--- 1\n", "mapping"},
	} {
		path := file(t, t.TempDir(), "config.yaml", c.text)
		if _, err := Load(Flags{Config: path, HostnameOverride: "n"}); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q is answered with %v, want %s", c.text, err, c.want)
		}
	}
	if _, err := Load(Flags{Config: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory is answered with %v", err)
	}
}

// TestUnused: a field that is known but does nothing is told.
func TestUnused(t *testing.T) {
	c, err := Load(Flags{HostnameOverride: "n", Config: file(t, t.TempDir(), "c.yaml", kubelet+"maxPods: 5\nhealthzPort: 0\n")})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.Unused, []string{"c.yaml: KubeletConfiguration.maxPods"}) {
		t.Errorf("the fields without effect are %v", c.Unused)
	}
}

func FuzzSplit(f *testing.F) {
	for _, text := range []string{kubelet, agent + "podNetwork: {cidrs: [x]}\n---\n" + kubelet, "&a [*a]", "---\n---\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		docs, err := split(text)
		if err != nil {
			return
		}
		var c Config
		for _, d := range docs {
			_ = c.decode("f", d)
		}
	})
}

// TestRuntimes: a handler has what it leaves out from the default, and what could
// not work is refused by field.
func TestRuntimes(t *testing.T) {
	load := func(text string) (*Config, error) {
		return Load(Flags{Config: file(t, t.TempDir(), "c.yaml", agent+text), HostnameOverride: "n"})
	}
	c, err := load("runtimes: {\"\": {binary: runc}, crun: {binary: /usr/bin/crun}, a: {binary: /a}}\n")
	if err != nil {
		t.Fatal(err)
	}
	if r := c.Agent.Runtimes["crun"]; r.Shim != defaultShim || r.Snapshotter != defaultSnapshotter || !slices.Equal(c.Handlers(), []string{"a", "crun"}) {
		t.Errorf("the handlers %v became %+v", c.Handlers(), r)
	}
	for text, want := range map[string]string{
		"runtimes: {Kata_1: {binary: /kata}}\n":                            `runtimes["Kata_1"]: no pod can name`,
		"runtimes: {k: {binary: /k, shim: io.containerd.kata.v2}}\n":       `runtimes["k"].shim`,
		"runtimes: {k: {binary: /k, snapshotter: devmapper}}\n":            `runtimes["k"].snapshotter`,
		"runtimes: {k: {binary: crun}}\n":                                  `runtimes["k"].binary`,
		"runtimes: {k: {}}\n":                                              `runtimes["k"].binary`,
		"runtimes: {\"\": {snapshotter: zfs}, k: {snapshotter: native}}\n": `runtimes["k"].snapshotter`,
	} {
		if _, err := load(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is answered with %v, want %s", text, err, want)
		}
	}
}

// TestUnsafeSysctls: what is no sysctl of a namespace could never be allowed.
func TestUnsafeSysctls(t *testing.T) {
	for pattern, ok := range map[string]bool{
		"kernel.shm*": true, "kernel.msgmax": true, "net.*": true, "net.ipv4.route.min_pmtu": true, "net/ipv4/tcp_mem": true,
		"kernel.core_pattern": false, "kernel.*": false, "vm.swappiness": false, "'*'": false, "net.ipv4.*.x": false, "'net.x y'": false,
	} {
		_, err := Load(Flags{Config: file(t, t.TempDir(), "c.yaml", kubelet+"allowedUnsafeSysctls: ["+pattern+"]\n"), HostnameOverride: "n"})
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "allowedUnsafeSysctls") {
			t.Errorf("%s is answered with %v", pattern, err)
		}
	}
}
