package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func clusterFile(t *testing.T, text string) Flags {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(kubelet+text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Flags{Config: path, Kubeconfig: "/etc/kubernetes/kubelet.conf"}
}

// TestCluster: with a kubeconfig the fields of a cluster's node count, and have
// kubelet's defaults.
func TestCluster(t *testing.T) {
	f := clusterFile(t, "podsPerCore: 3\nevictionHard: {memory.available: 5%}\n")
	f.NodeLabels = "a=b, c="
	c, err := Load(f)
	if err != nil {
		t.Fatal(err)
	}
	k := &c.Kubelet
	if len(c.Unused) > 0 || k.MaxPods != 110 || k.Port != 10250 || !*k.RegisterNode || k.NodeLeaseDurationSeconds != 40 || c.Cluster.CertDir != "/var/lib/kubelet/pki" {
		t.Errorf("unused %v, %+v", c.Unused, c.Cluster)
	}
	if l := c.Cluster.Labels; len(l) != 2 || l["a"] != "b" {
		t.Errorf("labels are %v", l)
	}
	f.Kubeconfig = ""
	if c, err = Load(f); err != nil || c.Cluster != nil || len(c.Unused) != 2 || c.Kubelet.MaxPods != 0 {
		t.Errorf("alone: %+v, unused %v, %v", c.Cluster, c.Unused, err)
	}
}

// TestClusterRefuses what would open the node, or cannot work.
func TestClusterRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"authentication: {anonymous: {enabled: true}}\n": "nobody is anonymous",
		"authorization: {mode: AlwaysAllow}\n":           "authorization.mode",
		"readOnlyPort: 10255\n":                          "readOnlyPort",
		"tlsMinVersion: VersionTLS10\n":                  "VersionTLS12",
		"tlsCipherSuites: [TLS_RSA_WITH_RC4_128_SHA]\n":  "TLS_RSA_WITH_RC4_128_SHA",
		"systemReserved: {cpu: a lot}\n":                 "systemReserved",
		"nodeLeaseDurationSeconds: 3\n":                  "nodeLeaseDurationSeconds",
		"enforceNodeAllocatable: [system-reserved]\n":    "enforceNodeAllocatable",
		"kubeAPIQPS: -1\n":                               "kubeAPIQPS",
		"eventBurst: -1\n":                               "eventBurst",
		"address: everywhere\n":                          "address",
	} {
		if _, err := Load(clusterFile(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", text, err, want)
		}
	}
	for _, f := range []Flags{{BootstrapKubeconfig: "/b"}, {Kubeconfig: "relative"}, {Kubeconfig: "/k", NodeLabels: "a"}, {Kubeconfig: "/k", CloudProvider: "aws"}} {
		if _, err := Load(f); err == nil {
			t.Errorf("%+v is taken", f)
		}
	}
}
