package config

import (
	"slices"
	"strings"
	"testing"
)

const kubeProxy = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"

func loadProxy(t *testing.T, text, kubeconfig string) (*Config, error) {
	t.Helper()
	return Load(Flags{Config: file(t, t.TempDir(), "c.yaml", text), HostnameOverride: "n", Kubeconfig: kubeconfig})
}

// kubeadm is what kubeadm writes: every field, most of them empty.
const kubeadm = kubeProxy + `bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection: {acceptContentTypes: "", burst: 0, contentType: "", kubeconfig: "", qps: 0}
clusterCIDR: 10.244.0.0/16,fd00::/48
configSyncPeriod: 0s
conntrack: {maxPerCore: null, min: null, tcpBeLiberal: false, tcpCloseWaitTimeout: null, tcpEstablishedTimeout: null, udpStreamTimeout: 0s, udpTimeout: 0s}
detectLocal: {bridgeInterface: "", interfaceNamePrefix: ""}
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: "", strictARP: false, syncPeriod: 0s, tcpFinTimeout: 0s, tcpTimeout: 0s, udpTimeout: 0s}
logging: {flushFrequency: 0, options: {json: {infoBufferSize: "0"}, text: {infoBufferSize: "0"}}, verbosity: 0}
metricsBindAddress: ""
mode: ""
nftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel: {enableDSR: false, forwardHealthCheckVip: false, networkName: "", rootHnsEndpointName: "", sourceVip: ""}
`

// TestProxy: what kubeadm writes is understood as it is, and says what kube-proxy
// takes it to say.
func TestProxy(t *testing.T) {
	c, err := loadProxy(t, kubeadm, "/k")
	if err != nil {
		t.Fatal(err)
	}
	p := c.Proxy
	if !c.Services() || p.HealthzBindAddress != "0.0.0.0:10256" || p.MetricsBindAddress != "127.0.0.1:10249" || *p.NFTables.MasqueradeBit != 14 ||
		p.Conntrack.TCPEstablishedTimeout.Hours() != 24 || p.Conntrack.TCPCloseWaitTimeout.Hours() != 1 {
		t.Errorf("it became %+v", p)
	}
	if len(c.Unused) != 0 {
		t.Errorf("fields that say nothing are called unused: %v", c.Unused)
	}
	if b, err := c.Binding(); err != nil || len(b.Pods) != 2 || !b.All || b.Primary {
		t.Errorf("the binding is %+v, %v", b, err)
	}
	if c.WantsLocalhost() {
		t.Error("what the file leaves open is taken for a wish")
	}
	for cores, want := range map[int]int{1: 128 << 10, 16: 512 << 10, 256: 1 << 20} {
		if n, chosen := c.Connections(cores); n != want || chosen {
			t.Errorf("with %d cores %d connections are remembered, chosen %v", cores, n, chosen)
		}
	}
	c, err = loadProxy(t, kubeProxy+"mode: nftables\nbindAddress: \"::\"\nconntrack: {maxPerCore: 0}\noomScoreAdj: -5\n", "/k")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := c.Binding(); err != nil || b.All || !b.Primary || c.Proxy.HealthzBindAddress != "[::]:10256" {
		t.Errorf("the binding is %+v, %v at %s", b, err, c.Proxy.HealthzBindAddress)
	}
	if n, chosen := c.Connections(4); n != 0 || !chosen || !slices.Equal(c.Unused, []string{"c.yaml: KubeProxyConfiguration.oomScoreAdj"}) {
		t.Errorf("%d connections, unused %v", n, c.Unused)
	}
	c, err = loadProxy(t, kubeProxy+"conntrack: {maxPerCore: 100000, min: 2000000}\n", "/k")
	if err != nil {
		t.Fatal(err)
	}
	for cores, want := range map[int]int{4: 2000000, 11: 1 << 20} { // as kube-proxy
		if n, chosen := c.Connections(cores); n != want || !chosen {
			t.Errorf("with %d cores %d connections are remembered, chosen %v", cores, n, chosen)
		}
	}
	c, err = loadProxy(t, kubeProxy+"nodePortAddresses: [localhost, 10.0.0.0/8, primary]\ndetectLocalMode: NodeCIDR\n", "/k")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := c.Binding(); err != nil || b.All || !b.Primary || !b.NodeCIDR || len(b.NodePorts) != 1 {
		t.Errorf("the binding is %+v, %v", b, err)
	}
}

// TestProxyMode: each mode has fields of its own, and what nobody acts on is said.
func TestProxyMode(t *testing.T) {
	c, err := loadProxy(t, kubeProxy+"mode: iptables\niptables: {masqueradeAll: true, masqueradeBit: 3, syncPeriod: 30s, minSyncPeriod: 0s, localhostNodePorts: true}\nnftables: {minSyncPeriod: 1s}\nipvs: {scheduler: lc, minSyncPeriod: 0s, syncPeriod: 10s}\n", "/k")
	if err != nil {
		t.Fatal(err)
	}
	if p := c.Proxy; !c.Services() || p.Mode != ModeIPTables || !p.IPTables.MasqueradeAll || *p.IPTables.MasqueradeBit != 3 || *p.NFTables.MasqueradeBit != 14 {
		t.Errorf("it became %+v", p)
	}
	if b, err := c.Binding(); err != nil || !b.All || b.Primary {
		t.Errorf("the binding is %+v, %v", b, err)
	}
	want := []string{"iptables.localhostNodePorts", "iptables.syncPeriod", "ipvs.syncPeriod", "nftables.minSyncPeriod"}
	for i := range want {
		want[i] = "c.yaml: KubeProxyConfiguration." + want[i]
	}
	if !slices.Equal(c.Unused, want) {
		t.Errorf("unused are %v", c.Unused)
	}
	c, err = loadProxy(t, kubeProxy+"mode: iptables\niptables: {localhostNodePorts: false}\n", "/k")
	if err != nil || len(c.Unused) != 0 || *c.Proxy.IPTables.MasqueradeBit != 14 {
		t.Errorf("who does not want node ports at loopback addresses is answered with %v, %v", c.Unused, err)
	}
}

// TestProxyByInterface: whose packets are a pod's may be told by where they come in.
// TestWantsLocalhost: who asks for node ports at 127.0.0.1 in a mode in which
// kube-proxy has them is told that there are none.
func TestWantsLocalhost(t *testing.T) {
	for text, want := range map[string]bool{
		"iptables: {localhostNodePorts: true}\n": true, "mode: iptables\niptables: {localhostNodePorts: true}\n": true,
		"mode: nftables\niptables: {localhostNodePorts: true}\n": false, "mode: iptables\niptables: {localhostNodePorts: false}\n": false,
	} {
		c, err := loadProxy(t, kubeProxy+text, "/k")
		if err != nil {
			t.Fatal(err)
		}
		if c.WantsLocalhost() != want {
			t.Errorf("%q asks for it: %v", text, !want)
		}
	}
}

func TestProxyByInterface(t *testing.T) {
	for text, want := range map[string]string{
		"detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: cni0}\n":           "cni0",
		"detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: veth-x}\n": "veth-x+",
	} {
		c, err := loadProxy(t, kubeProxy+text, "/k")
		if err != nil {
			t.Fatal(err)
		}
		if b, err := c.Binding(); err != nil || b.Interface != want || len(b.Pods) != 0 || b.NodeCIDR || len(c.Unused) != 0 {
			t.Errorf("%q: the binding is %+v, %v; unused are %v", text, b, err, c.Unused)
		}
	}
}

// TestProxyWhen: who is not told, or has nobody to ask, leaves services alone.
func TestProxyWhen(t *testing.T) {
	for _, c := range []struct {
		text, kubeconfig string
		want             bool
	}{
		{kubelet, "/k", false},
		{kubeProxy, "/k", true},
		{kubeProxy, "", false},
		{kubeProxy + "mode: none\n", "/k", false},
		{kubeProxy + "clientConnection: {kubeconfig: /p}\n", "", true},
		{agent + "proxyOnly: true\n", "/k", true},
		{agent + "proxyOnly: true\n---\n" + kubeProxy + "clientConnection: {kubeconfig: /p}\n", "", true},
	} {
		got, err := loadProxy(t, c.text, c.kubeconfig)
		if err != nil || got.Services() != c.want {
			t.Errorf("%q with kubeconfig %q programs services: %v, %v", c.text, c.kubeconfig, got != nil && got.Services(), err)
		}
	}
	c, err := loadProxy(t, kubeProxy+"clusterCIDR: 10.0.0.0/8\n", "")
	if err != nil || !slices.Equal(c.Unused, []string{"c.yaml: KubeProxyConfiguration.clusterCIDR"}) {
		t.Errorf("a node that stands alone calls unused: %v, %v", c.Unused, err)
	}
}

func TestProxyRefused(t *testing.T) {
	for text, want := range map[string]string{
		kubeProxy + "clusterCIDRs: x\n":                  `line 3: KubeProxyConfiguration: unknown field "clusterCIDRs"`,
		kubeProxy + "conntrack:\n  max: 5\n":             `line 4: KubeProxyConfiguration: unknown field "conntrack.max"`,
		kubeProxy + "mode: kernelspace\n":                `mode: "kernelspace" is neither`,
		kubeProxy + "clusterCIDR: ten\n":                 "clusterCIDR: \"ten\" is not a range",
		kubeProxy + "detectLocalMode: Psychic\n":         `detectLocalMode: "Psychic" is none of`,
		kubeProxy + "detectLocalMode: BridgeInterface\n": `detectLocal.bridgeInterface: "" is not`,
		kubeProxy + "detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: \"veth -j ACCEPT\"}\n": `detectLocal.interfaceNamePrefix: "veth -j ACCEPT" is not`,
		kubeProxy + "nodePortAddresses: [everywhere]\n":                                                              `nodePortAddresses: "everywhere" is neither`,
		kubeProxy + "hostnameOverride: other\n":                                                                      `hostnameOverride: "other" is not the node's name`,
		kubeProxy + "healthzBindAddress: here\n":                                                                     `healthzBindAddress: "here" is not an address and a port`,
		kubeProxy + "nftables: {masqueradeBit: 32}\n":                                                                "nftables.masqueradeBit: 32",
		kubeProxy + "iptables: {masqueradeBit: -1}\n":                                                                "iptables.masqueradeBit: -1",
		kubeProxy + "conntrack: {maxPerCore: -1, udpTimeout: -1s}\n":                                                 "conntrack.udpTimeout: -1s",
		agent + "proxyOnly: true\n---\n" + kubeProxy + "mode: none\n":                                                "proxyOnly: it needs an API server",
		kubeProxy + "clientConnection: {kubeconfig: p}\n":                                                            `clientConnection.kubeconfig: "p" is not an absolute path`,
		kubeProxy + "mode: ipvs\nipvs: {scheduler: best}\n":                                                          `ipvs.scheduler: "best" is none of rr,`,
		kubeProxy + "mode: ipvs\nipvs: {excludeCIDRs: [x]}\n":                                                        `ipvs.excludeCIDRs: "x" is not a range`,
		kubeProxy + "mode: ipvs\nipvs: {tcpTimeout: -1s}\n":                                                          "ipvs.tcpTimeout: -1s is less",
	} {
		if _, err := loadProxy(t, text, "/k"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is answered with %v, want %s", text, err, want)
		}
	}
}
