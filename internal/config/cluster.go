package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"nodeagent/internal/pod"
)

// Cluster is what the node of a cluster is told beside its files.
type Cluster struct {
	Kubeconfig string            `json:"kubeconfig"`
	Bootstrap  string            `json:"bootstrapKubeconfig,omitempty"`
	CertDir    string            `json:"certDir"`
	Labels     map[string]string `json:"labels,omitempty"` // --node-labels
	// ExternalCloud: a controller of the cloud tells addresses (--cloud-provider).
	ExternalCloud bool `json:"externalCloud,omitempty"`
}

// inCluster are the fields of KubeletConfiguration that the daemon acts on only
// with a kubeconfig.
var inCluster = []string{
	"registerNode", "registerWithTaints", "providerID", "nodeStatusReportFrequency", "nodeLeaseDurationSeconds",
	"nodeStatusMaxImages", "maxPods", "podsPerCore", "systemReserved", "kubeReserved", "evictionHard", "mergeDefaultEvictionSettings",
	"reservedSystemCPUs", "enforceNodeAllocatable", "eventRecordQPS", "eventBurst", "kubeAPIQPS", "kubeAPIBurst", "rotateCertificates",
	"enableControllerAttachDetach", "address", "port", "authentication", "authorization", "tlsCertFile", "tlsPrivateKeyFile",
	"tlsMinVersion", "tlsCipherSuites", "serverTLSBootstrap", "streamingConnectionIdleTimeout", "enableSystemLogHandler", "enableSystemLogQuery",
}

// Defaults of these, as kubelet has them.
const (
	defaultReport     = 5 * time.Minute
	defaultLease      = 40
	defaultMaxPods    = 110
	defaultMaxImages  = 50
	defaultEventQPS   = 50
	defaultEventBurst = 100
	defaultPort       = 10250
)

// join makes the node one of a cluster, if the flags say so.
func (c *Config) join(f Flags) error {
	if f.Kubeconfig == "" {
		if f.BootstrapKubeconfig != "" {
			return errors.New("--bootstrap-kubeconfig: it needs --kubeconfig, the file that is written when there is a certificate")
		}
		return nil
	}
	labels, err := parseLabels(f.NodeLabels)
	if err != nil {
		return err
	}
	switch f.CloudProvider {
	case "", "external":
	default:
		return fmt.Errorf("--cloud-provider: %q is neither empty nor external", f.CloudProvider)
	}
	c.Cluster = &Cluster{Kubeconfig: f.Kubeconfig, Bootstrap: f.BootstrapKubeconfig, CertDir: f.CertDir,
		Labels: labels, ExternalCloud: f.CloudProvider == "external"}
	return nil
}

func parseLabels(text string) (map[string]string, error) {
	labels := map[string]string{}
	for pair := range strings.SplitSeq(text, ",") {
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("--node-labels: %q is not key=value", pair)
		}
		labels[strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	return labels, nil
}

// defaultCluster fills in what only the node of a cluster has.
func (c *Config) defaultCluster() {
	if c.Cluster == nil {
		return
	}
	k := &c.Kubelet
	if c.Cluster.CertDir == "" {
		c.Cluster.CertDir = filepath.Join(c.RootDir, "pki")
	}
	if k.NodeStatusReportFrequency.Duration == 0 {
		k.NodeStatusReportFrequency = metav1.Duration{Duration: defaultReport}
	}
	for _, d := range []struct {
		to *int32
		v  int32
	}{
		{&k.NodeLeaseDurationSeconds, defaultLease}, {&k.MaxPods, defaultMaxPods}, {&k.EventBurst, defaultEventBurst}, {&k.Port, defaultPort},
	} {
		if *d.to == 0 {
			*d.to = d.v
		}
	}
	for _, d := range []struct {
		to **int32
		v  int32
	}{{&k.NodeStatusMaxImages, defaultMaxImages}, {&k.EventRecordQPS, defaultEventQPS}} {
		if *d.to == nil {
			*d.to = &d.v
		}
	}
	for _, to := range []**bool{&k.RegisterNode, &k.EnableControllerAttachDetach, &k.EnableSystemLogHandler} {
		if *to == nil {
			*to = new(true)
		}
	}
	if k.Address == "" {
		k.Address = "0.0.0.0"
	}
	if k.Authentication.Webhook.Enabled == nil {
		k.Authentication.Webhook.Enabled = new(true)
	}
	if k.EnforceNodeAllocatable == nil {
		k.EnforceNodeAllocatable = []string{"pods"}
	}
}

// Reserved is what is kept back from the pods of a cluster's node.
func (c *Config) Reserved() (pod.Reserved, error) {
	k := &c.Kubelet
	return pod.ParseReserved(pod.ReservedConfig{
		System: k.SystemReserved, Kube: k.KubeReserved, EvictionHard: k.EvictionHard,
		MergeEviction: Enabled(k.MergeDefaultEvictionSettings),
		CPUs:          k.ReservedSystemCPUs,
	})
}

// tlsVersions are those that the node API may be told to begin with.
var tlsVersions = map[string]uint16{"": 0, "VersionTLS12": tls.VersionTLS12, "VersionTLS13": tls.VersionTLS13}

// TLS is tlsMinVersion, 0 where nothing is said, and tlsCipherSuites.
func (c *Config) TLS() (version uint16, suites []uint16, err error) {
	version, known := tlsVersions[c.Kubelet.TLSMinVersion]
	if !known {
		return 0, nil, fmt.Errorf("%q is neither VersionTLS12 nor VersionTLS13", c.Kubelet.TLSMinVersion)
	}
	for _, name := range c.Kubelet.TLSCipherSuites {
		i := slices.IndexFunc(tls.CipherSuites(), func(s *tls.CipherSuite) bool { return s.Name == name })
		if i < 0 {
			return 0, nil, fmt.Errorf("%q is no cipher suite that may be used", name)
		}
		suites = append(suites, tls.CipherSuites()[i].ID)
	}
	return version, suites, nil
}

// Enabled is a switch that is off where nothing is said.
func Enabled(b *bool) bool { return b != nil && *b }

// checkCluster refuses what cannot work on the node of a cluster.
func (c *Config) checkCluster(bad func(field, format string, args ...any)) {
	if c.Cluster == nil {
		return
	}
	for field, path := range map[string]string{"--kubeconfig": c.Cluster.Kubeconfig, "--cert-dir": c.Cluster.CertDir} {
		if !filepath.IsAbs(path) {
			bad(field, "%q is not an absolute path", path)
		}
	}
	if _, err := c.Reserved(); err != nil {
		bad("systemReserved, kubeReserved, evictionHard, reservedSystemCPUs", "%v", err)
	}
	if c.Kubelet.NodeLeaseDurationSeconds < 4 {
		bad("nodeLeaseDurationSeconds", "%d is less than 4: it would run out between two renewals", c.Kubelet.NodeLeaseDurationSeconds)
	}
	if k := &c.Kubelet; Enabled(k.Authentication.Anonymous.Enabled) {
		bad("authentication.anonymous.enabled", "nobody is anonymous at the node API: leave it out or say false")
	}
	if mode := c.Kubelet.Authorization.Mode; mode != "" && mode != kubeletv1beta1.KubeletAuthorizationModeWebhook {
		bad("authorization.mode", "%q: the node API asks the API server what somebody may do: leave it out or say Webhook", mode)
	}
	if c.Kubelet.ReadOnlyPort != 0 {
		bad("readOnlyPort", "%d: there is no port without authentication: leave it out or say 0", c.Kubelet.ReadOnlyPort)
	}
	if net.ParseIP(c.Kubelet.Address) == nil {
		bad("address", "%q is not an address", c.Kubelet.Address)
	}
	if _, _, err := c.TLS(); err != nil {
		bad("tlsMinVersion, tlsCipherSuites", "%v", err)
	}
	for _, e := range c.Kubelet.EnforceNodeAllocatable {
		if e != "pods" && e != "none" {
			bad("enforceNodeAllocatable", "%q: only pods and none are built", e)
		}
	}
}
