package config

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/component-helpers/node/util/sysctl"
)

// Defaults of KubeletConfiguration as kubelet has them, where not said
// otherwise.
const (
	defaultRootDir       = "/var/lib/kubelet"
	defaultStateDir      = "/var/lib/nodeagent"
	defaultRunDir        = "/run/nodeagent"
	defaultPodLogsDir    = "/var/log/pods"
	defaultManifests     = "/etc/kubernetes/manifests"
	defaultEndpoint      = "unix:///run/containerd/containerd.sock"
	defaultLogMaxSize    = "10Mi"
	defaultLogMaxFiles   = 5
	defaultFileCheck     = 20 * time.Second
	defaultHTTPCheck     = 20 * time.Second
	defaultHealthzPort   = 10248
	defaultPodPidsLimit  = 4096 // kubelet: no limit
	defaultBridge        = "nodeagent0"
	defaultCNIConfDir    = "/etc/cni/net.d"
	defaultCNIBinDir     = "/opt/cni/bin"
	defaultRegistryConf  = "/etc/containerd/certs.d"
	defaultSnapshotter   = "overlayfs"
	defaultShim          = "io.containerd.nodeagent.v1"
	defaultResolvConf    = "/etc/resolv.conf"
	resolvedConf         = "/run/systemd/resolve/resolv.conf"
	loopbackResolverStub = "127.0.0.53"
)

func (c *Config) setDefaults() error {
	k, a := &c.Kubelet, &c.Agent
	for _, d := range []struct {
		to *string
		v  string
	}{
		{&c.RootDir, defaultRootDir},
		{&a.StateDir, defaultStateDir},
		{&a.RunDir, defaultRunDir},
		{&k.PodLogsDir, defaultPodLogsDir},
		{&k.StaticPodPath, defaultManifests},
		{&k.ContainerRuntimeEndpoint, defaultEndpoint},
		{&k.ContainerLogMaxSize, defaultLogMaxSize},
		{&k.HealthzBindAddress, "127.0.0.1"},
		{&k.CgroupRoot, "/"},
		{&a.RegistryConfigDir, defaultRegistryConf},
		{&a.PodNetwork.Bridge, defaultBridge},
		{&a.PodNetwork.CNIConfDir, defaultCNIConfDir},
		{&a.PodNetwork.CNIBinDir, defaultCNIBinDir},
	} {
		if *d.to == "" {
			*d.to = d.v
		}
	}
	if k.FileCheckFrequency.Duration == 0 {
		k.FileCheckFrequency.Duration = defaultFileCheck
	}
	if k.HTTPCheckFrequency.Duration == 0 {
		k.HTTPCheckFrequency.Duration = defaultHTTPCheck
	}
	if k.ContainerLogMaxFiles == nil {
		k.ContainerLogMaxFiles = new(int32(defaultLogMaxFiles))
	}
	if k.HealthzPort == nil {
		k.HealthzPort = new(int32(defaultHealthzPort))
	}
	if k.PodPidsLimit == nil {
		k.PodPidsLimit = new(int64(defaultPodPidsLimit))
	}
	if k.SeccompDefault == nil {
		k.SeccompDefault = new(true) // kubelet: false
	}
	if k.ResolverConfig == nil {
		k.ResolverConfig = new(nodeResolvConf())
	}
	if a.ImagesDir == "" {
		a.ImagesDir = filepath.Join(a.StateDir, "images")
	}
	c.defaultRuntime()
	c.defaultCluster()
	c.defaultProxy()
	if len(a.PodNetwork.CIDRs) == 0 && k.PodCIDR != "" {
		a.PodNetwork.CIDRs = strings.Split(k.PodCIDR, ",")
		c.origin(originAgent+".podNetwork.cidrs", c.Origin[originKubelet+".podCIDR"])
	}
	return c.defaultNodeName()
}

func (c *Config) defaultRuntime() {
	if c.Agent.Runtimes == nil {
		c.Agent.Runtimes = map[string]Runtime{}
	}
	def := c.Agent.Runtimes[""]
	if def.Shim == "" {
		def.Shim = defaultShim
	}
	if def.Snapshotter == "" {
		def.Snapshotter = defaultSnapshotter
	}
	c.Agent.Runtimes[""] = def
	for name, r := range c.Agent.Runtimes {
		if r.Shim == "" {
			r.Shim = defaultShim
		}
		if r.Snapshotter == "" {
			r.Snapshotter = def.Snapshotter
		}
		c.Agent.Runtimes[name] = r
	}
}

// checkRuntimes judges the handlers: a pod names one by its runtimeClassName.
func (c *Config) checkRuntimes(bad func(field, format string, args ...any)) {
	for _, name := range c.Handlers() {
		at, r := fmt.Sprintf("runtimes[%q]", name), c.Agent.Runtimes[name]
		if why := validation.IsDNS1123Subdomain(name); len(why) > 0 {
			bad(at, "no pod can name this handler: %s", strings.Join(why, "; "))
		}
		if r.Shim != defaultShim {
			bad(at+".shim", "%q: a handler beside the default one has the shim %s for now; leave it out", r.Shim, defaultShim)
		}
		if def := c.Agent.Runtimes[""].Snapshotter; r.Snapshotter != def {
			bad(at+".snapshotter", "%q: images are unpacked once, by %q; leave it out", r.Snapshotter, def)
		}
		if !filepath.IsAbs(r.Binary) {
			bad(at+".binary", "%q is not the absolute path of an OCI runtime", r.Binary)
		}
	}
}

// Handlers are the names of the runtime handlers beside the default one, sorted.
func (c *Config) Handlers() []string {
	all := slices.Sorted(maps.Keys(c.Agent.Runtimes))
	return slices.DeleteFunc(all, func(name string) bool { return name == "" })
}

func (c *Config) defaultNodeName() error {
	if c.NodeName != "" {
		return nil
	}
	name, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("find the node's name: %w", err)
	}
	c.NodeName = strings.ToLower(strings.TrimSpace(name))
	return nil
}

// nodeResolvConf avoids systemd-resolved's stub, which answers on the node's
// loopback only: a pod that asked it would ask itself.
func nodeResolvConf() string {
	text, err := os.ReadFile(defaultResolvConf)
	if err == nil && strings.Contains(string(text), loopbackResolverStub) {
		if _, err := os.Stat(resolvedConf); err == nil {
			return resolvedConf
		}
	}
	return defaultResolvConf
}

// sysctlPattern is a sysctl, or the beginning of some and a star (kubelet:
// pkg/apis/policy/validation).
var sysctlPattern = regexp.MustCompile(`^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*([a-z0-9][-_a-z0-9]*)?[a-z0-9*]$`)

// check refuses values that cannot work, all at once.
func (c *Config) check() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf(field+": "+format, args...))
	}
	if _, err := resource.ParseQuantity(c.Kubelet.ContainerLogMaxSize); err != nil {
		bad("containerLogMaxSize", "%q is not a quantity such as 10Mi", c.Kubelet.ContainerLogMaxSize)
	}
	if *c.Kubelet.ContainerLogMaxFiles < 2 {
		bad("containerLogMaxFiles", "%d is less than 2", *c.Kubelet.ContainerLogMaxFiles)
	}
	switch c.Kubelet.CgroupDriver {
	case "", "systemd", "cgroupfs":
	default:
		bad("cgroupDriver", "%q is neither systemd nor cgroupfs", c.Kubelet.CgroupDriver)
	}
	if !strings.HasPrefix(c.Kubelet.ContainerRuntimeEndpoint, "unix://") {
		bad("containerRuntimeEndpoint", "%q is not a unix:// address of containerd", c.Kubelet.ContainerRuntimeEndpoint)
	}
	if at, err := url.Parse(c.Kubelet.StaticPodURL); c.Kubelet.StaticPodURL != "" && (err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https") {
		bad("staticPodURL", "it is not an http or https URL") // it may hold a password
	}
	c.checkRuntimes(bad)
	for _, pattern := range c.Kubelet.AllowedUnsafeSysctls {
		if space, _, _ := sysctl.GetNamespace(pattern); space == sysctl.UnknownNamespace || !sysctlPattern.MatchString(pattern) {
			bad("allowedUnsafeSysctls", "%q is neither a sysctl of a namespace nor the beginning of some, as kernel.shm* or net.ipv4.conf.all.*", pattern)
		}
	}
	c.checkPulls(bad)
	c.checkRates(bad)
	c.checkShutdown(bad)
	c.checkCluster(bad)
	c.checkProxy(bad)
	for _, cidr := range c.Agent.PodNetwork.CIDRs {
		if _, err := netip.ParsePrefix(cidr); err != nil {
			bad("podNetwork.cidrs", "%v", err)
		}
	}
	for _, ip := range c.NodeIPs {
		if _, err := netip.ParseAddr(ip); err != nil {
			bad("--node-ip", "%v", err)
		}
	}
	for field, dir := range map[string]string{
		"stateDir": c.Agent.StateDir, "runDir": c.Agent.RunDir, "--root-dir": c.RootDir,
		"podLogsDir": c.Kubelet.PodLogsDir, "staticPodPath": c.Kubelet.StaticPodPath, "imagesDir": c.Agent.ImagesDir, "cgroupRoot": c.Kubelet.CgroupRoot,
	} {
		if !filepath.IsAbs(dir) {
			bad(field, "%q is not an absolute path", dir)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("check the configuration: %w", err)
	}
	return nil
}

// LogMaxSize is containerLogMaxSize in bytes.
func (c *Config) LogMaxSize() int64 {
	q := resource.MustParse(c.Kubelet.ContainerLogMaxSize)
	return q.Value()
}

// Endpoint is the path of containerd's socket.
func (c *Config) Endpoint() string {
	return strings.TrimPrefix(c.Kubelet.ContainerRuntimeEndpoint, "unix://")
}

// ContainersLogsDir is where the links to containers' logs are: beside the
// pods' logs, so that it moves with them.
func (c *Config) ContainersLogsDir() string {
	return filepath.Join(filepath.Dir(c.Kubelet.PodLogsDir), "containers")
}

// CIDRs are the pods' address ranges.
func (c *Config) CIDRs() []netip.Prefix {
	var all []netip.Prefix
	for _, s := range c.Agent.PodNetwork.CIDRs {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}
