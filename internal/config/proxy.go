package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeproxyv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
)

// Modes of the service proxy.
const (
	ModeNFTables = "nftables"
	ModeIPTables = "iptables"
	ModeIPVS     = "ipvs"
	ModeNone     = "none" // somebody else does it
)

// Detections of pods' packets that are built.
const (
	localByClusterCIDR = "ClusterCIDR"
	localByNodeCIDR    = "NodeCIDR"
	localByBridge      = "BridgeInterface"
	localByPrefix      = "InterfaceNamePrefix"
)

// Defaults of KubeProxyConfiguration, as kube-proxy has them.
const (
	defaultProxyHealthPort  = 10256
	defaultProxyMetricsPort = 10249
	defaultMasqueradeBit    = 14
	defaultConntrackPerCore = 32 << 10
	defaultConntrackMin     = 128 << 10
	mostByCores             = 1 << 20 // connections, however many cores there are
	defaultEstablished      = 24 * time.Hour
	defaultCloseWait        = time.Hour
)

// usedProxy are the fields of KubeProxyConfiguration that the daemon acts on.
// Those of a mode that is not this one's have no effect with kube-proxy, either.
var usedProxy = []string{
	"apiVersion", "kind", "clientConnection", "hostnameOverride", "bindAddress", "healthzBindAddress", "metricsBindAddress",
	"bindAddressHardFail", "mode", "iptables", "ipvs", "nftables", "winkernel", "detectLocalMode", "detectLocal", "clusterCIDR",
	"nodePortAddresses", "conntrack",
}

// unusedProxy are fields below these that nobody acts on: changes are written when
// they come, and node ports never are at loopback addresses.
var unusedProxy = []string{"syncPeriod", "minSyncPeriod", "localhostNodePorts"}

// decodeProxy lays a KubeProxyConfiguration over what is there.
func (c *Config) decodeProxy(path string, d document) error {
	if c.Proxy == nil {
		c.Proxy = &kubeproxyv1alpha1.KubeProxyConfiguration{}
	}
	if err := d.into(c.Proxy); err != nil {
		return err
	}
	used := usedProxy
	if c.Cluster == nil && c.Proxy.ClientConnection.Kubeconfig == "" {
		used = nil // nobody says which services there are
	}
	c.noteUnused(path, d, reflect.TypeFor[kubeproxyv1alpha1.KubeProxyConfiguration](), func(f string) bool { return slices.Contains(used, f) })
	if used != nil {
		c.noteUnusedOfModes(path, d)
	}
	return nil
}

// noteUnusedOfModes remembers such fields of the modes that there are.
func (c *Config) noteUnusedOfModes(path string, d document) {
	for i, mode := range d.fields {
		of := d.root.Content[2*i+1]
		if !slices.Contains([]string{ModeNFTables, ModeIPTables, ModeIPVS}, mode) || of.Kind != yaml.MappingNode {
			continue
		}
		for j := 0; j+1 < len(of.Content); j += 2 {
			if f := of.Content[j].Value; slices.Contains(unusedProxy, f) && !empty(of.Content[j+1]) {
				c.Unused = append(c.Unused, fmt.Sprintf("%s: %s.%s.%s", filepath.Base(path), d.kind, mode, f))
			}
		}
	}
}

// Services tells whether the daemon programs the rules of services: it is told to
// by a KubeProxyConfiguration, and there is an API server to ask.
func (c *Config) Services() bool {
	return c.Proxy != nil && string(c.Proxy.Mode) != ModeNone && (c.Cluster != nil || c.Proxy.ClientConnection.Kubeconfig != "")
}

// defaultProxy fills in what the file leaves open.
func (c *Config) defaultProxy() {
	if c.Proxy == nil && c.Agent.ProxyOnly {
		c.Proxy = &kubeproxyv1alpha1.KubeProxyConfiguration{}
	}
	p := c.Proxy
	if p == nil {
		return
	}
	all, local := "0.0.0.0", "127.0.0.1"
	if a, err := netip.ParseAddr(p.BindAddress); err == nil && a.Is6() {
		all, local = "::", "::1"
	}
	p.HealthzBindAddress = withPort(p.HealthzBindAddress, all, defaultProxyHealthPort)
	p.MetricsBindAddress = withPort(p.MetricsBindAddress, local, defaultProxyMetricsPort)
	if p.DetectLocalMode == "" {
		p.DetectLocalMode = localByClusterCIDR
	}
	for _, bit := range []**int32{&p.NFTables.MasqueradeBit, &p.IPTables.MasqueradeBit} {
		if *bit == nil {
			*bit = new(int32(defaultMasqueradeBit))
		}
	}
	t := &p.Conntrack
	if t.TCPEstablishedTimeout == nil {
		t.TCPEstablishedTimeout = &metav1.Duration{Duration: defaultEstablished}
	}
	if t.TCPCloseWaitTimeout == nil {
		t.TCPCloseWaitTimeout = &metav1.Duration{Duration: defaultCloseWait}
	}
	if c.Agent.ProxyOnly && c.NodeName == "" {
		c.NodeName = strings.ToLower(strings.TrimSpace(p.HostnameOverride))
	}
}

// withPort fills in an address and its port.
func withPort(addr, host string, port int) string {
	switch _, _, err := net.SplitHostPort(addr); {
	case addr == "":
		return net.JoinHostPort(host, strconv.Itoa(port))
	case err != nil && net.ParseIP(addr) != nil:
		return net.JoinHostPort(addr, strconv.Itoa(port))
	}
	return addr
}

// Connections is how many connections the kernel shall remember, with so many
// cores; 0: what it likes. chosen tells that the operator says so.
func (c *Config) Connections(cores int) (most int, chosen bool) {
	t := &c.Proxy.Conntrack
	per, least := int32(defaultConntrackPerCore), int32(defaultConntrackMin)
	if t.MaxPerCore != nil {
		per = *t.MaxPerCore
	}
	if t.Min != nil {
		least = *t.Min
	}
	if per <= 0 {
		return 0, true
	}
	chosen = t.MaxPerCore != nil || t.Min != nil
	if int(per)*cores > mostByCores {
		return mostByCores, chosen
	}
	return max(int(per)*cores, int(least)), chosen
}

// WantsLocalhost tells whether the operator asks for node ports at loopback addresses,
// which kube-proxy has in mode iptables, the one that it takes where the file names
// none.
func (c *Config) WantsLocalhost() bool {
	p := c.Proxy
	return (p.Mode == "" || p.Mode == ModeIPTables) && p.IPTables.LocalhostNodePorts != nil && *p.IPTables.LocalhostNodePorts
}

// ProxyBinding is where node ports are served, and whose packets are a pod's.
type ProxyBinding struct {
	Pods      []netip.Prefix // all pods'; empty: see NodeCIDR and Interface
	NodeCIDR  bool           // those of the Node are
	Interface string         // what comes in here is a pod's; with + at the end: at all that begin so
	Primary   bool           // node ports at the Node's primary addresses
	NodePorts []netip.Prefix // and at these; none of both: at all addresses
	All       bool           // node ports at all addresses
}

// Binding reads it. As kube-proxy has it, node ports are at the primary addresses
// where the file says nftables and nothing else, and at all where it does not name
// a mode.
func (c *Config) Binding() (ProxyBinding, error) {
	var b ProxyBinding
	var errs []error
	p := c.Proxy
	switch p.DetectLocalMode {
	case localByClusterCIDR:
		for cidr := range strings.SplitSeq(p.ClusterCIDR, ",") {
			if cidr = strings.TrimSpace(cidr); cidr == "" {
				continue
			}
			prefix, err := netip.ParsePrefix(cidr)
			if err != nil {
				errs = append(errs, fmt.Errorf("clusterCIDR: %q is not a range of addresses", cidr))
				continue
			}
			b.Pods = append(b.Pods, prefix.Masked())
		}
	case localByNodeCIDR:
		b.NodeCIDR = true
	case localByBridge:
		b.Interface = p.DetectLocal.BridgeInterface
		errs = append(errs, interfaceName("bridgeInterface", b.Interface))
	case localByPrefix:
		b.Interface = p.DetectLocal.InterfaceNamePrefix + "+"
		errs = append(errs, interfaceName("interfaceNamePrefix", p.DetectLocal.InterfaceNamePrefix))
	default:
		errs = append(errs, fmt.Errorf("detectLocalMode: %q is none of %s, %s, %s and %s", p.DetectLocalMode, localByClusterCIDR, localByNodeCIDR, localByBridge, localByPrefix))
	}
	if len(p.NodePortAddresses) == 0 {
		b.Primary = p.Mode == ModeNFTables
		b.All = !b.Primary
	}
	for _, a := range p.NodePortAddresses {
		switch a {
		case "primary":
			b.Primary = true
		case "all":
			b.All = true
		case "localhost": // never: the kernel would have to route it
		default:
			prefix, err := netip.ParsePrefix(a)
			if err != nil {
				errs = append(errs, fmt.Errorf("nodePortAddresses: %q is neither a range of addresses nor primary, all or localhost", a))
				continue
			}
			if prefix.Bits() == 0 {
				b.All = b.All || prefix.Addr().Is4()
			}
			b.NodePorts = append(b.NodePorts, prefix.Masked())
		}
	}
	return b, errors.Join(errs...)
}

// maxInterface is the most bytes that the kernel takes for an interface's name.
const maxInterface = 15

// interfaceName refuses what is no interface's name.
func interfaceName(field, name string) error {
	odd := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/:+\"'\\", r) }
	if name == "" || len(name) > maxInterface || strings.ContainsFunc(name, odd) {
		return fmt.Errorf("detectLocal.%s: %q is not the name of an interface", field, name)
	}
	return nil
}

// checkProxy refuses what the proxy of services cannot do.
func (c *Config) checkProxy(bad func(field, format string, args ...any)) {
	p := c.Proxy
	if p == nil {
		return
	}
	switch p.Mode {
	case "", ModeNFTables, ModeIPTables, ModeIPVS, ModeNone:
	default:
		bad("mode", "%q is neither nftables, iptables, ipvs nor none", p.Mode)
	}
	if c.Agent.ProxyOnly && !c.Services() {
		bad("proxyOnly", "it needs an API server (--kubeconfig, or clientConnection.kubeconfig), and a mode other than none")
	}
	if !c.Services() {
		return
	}
	if _, err := c.Binding(); err != nil {
		bad("KubeProxyConfiguration", "%v", err)
	}
	for field, bit := range map[string]*int32{"nftables.masqueradeBit": p.NFTables.MasqueradeBit, "iptables.masqueradeBit": p.IPTables.MasqueradeBit} {
		if *bit < 0 || *bit > 31 {
			bad(field, "%d is not 0 to 31", *bit)
		}
	}
	if path := p.ClientConnection.Kubeconfig; path != "" && !filepath.IsAbs(path) {
		bad("clientConnection.kubeconfig", "%q is not an absolute path", path)
	}
	if name := strings.ToLower(strings.TrimSpace(p.HostnameOverride)); name != "" && name != c.NodeName {
		bad("hostnameOverride", "%q is not the node's name, which is %q: leave it out", name, c.NodeName)
	}
	if p.BindAddress != "" && net.ParseIP(p.BindAddress) == nil {
		bad("bindAddress", "%q is not an address", p.BindAddress)
	}
	for field, addr := range map[string]string{"healthzBindAddress": p.HealthzBindAddress, "metricsBindAddress": p.MetricsBindAddress} {
		if _, err := netip.ParseAddrPort(addr); err != nil {
			bad(field, "%q is not an address and a port", addr)
		}
	}
	c.checkIPVS(bad)
	t := &p.Conntrack
	for field, n := range map[string]*int32{"conntrack.maxPerCore": t.MaxPerCore, "conntrack.min": t.Min} {
		if n != nil && *n < 0 {
			bad(field, "%d is less than 0", *n)
		}
	}
	for field, d := range map[string]time.Duration{
		"conntrack.tcpEstablishedTimeout": t.TCPEstablishedTimeout.Duration, "conntrack.tcpCloseWaitTimeout": t.TCPCloseWaitTimeout.Duration,
		"conntrack.udpTimeout": t.UDPTimeout.Duration, "conntrack.udpStreamTimeout": t.UDPStreamTimeout.Duration,
	} {
		if d < 0 {
			bad(field, "%s is less than 0", d)
		}
	}
}

// schedulers are those that IPVS has.
var schedulers = []string{"", "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "mh", "fo", "ovf", "twos"}

// Excluded are the addresses that the mode ipvs leaves as they are.
func (c *Config) Excluded() []netip.Prefix {
	var out []netip.Prefix
	for _, x := range c.Proxy.IPVS.ExcludeCIDRs {
		if p, err := netip.ParsePrefix(strings.TrimSpace(x)); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

// checkIPVS refuses what IPVS cannot do.
func (c *Config) checkIPVS(bad func(field, format string, args ...any)) {
	v := &c.Proxy.IPVS
	if !slices.Contains(schedulers, v.Scheduler) {
		bad("ipvs.scheduler", "%q is none of %s", v.Scheduler, strings.Join(schedulers[1:], ", "))
	}
	for _, x := range v.ExcludeCIDRs {
		if _, err := netip.ParsePrefix(strings.TrimSpace(x)); err != nil {
			bad("ipvs.excludeCIDRs", "%q is not a range of addresses", x)
		}
	}
	for field, d := range map[string]time.Duration{
		"ipvs.tcpTimeout": v.TCPTimeout.Duration, "ipvs.tcpFinTimeout": v.TCPFinTimeout.Duration, "ipvs.udpTimeout": v.UDPTimeout.Duration,
	} {
		if d < 0 {
			bad(field, "%s is less than 0", d)
		}
	}
	if bit := c.Proxy.IPTables.MasqueradeBit; bit != nil && (*bit < 0 || *bit > 31) {
		bad("iptables.masqueradeBit", "%d is not 0 to 31", *bit)
	}
}
