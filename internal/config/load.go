package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// maxFile is the largest configuration file that is read.
const maxFile = 10 << 20

// Load reads the file and the drop-ins that the flags name, lays the flags over
// them and fills in the defaults. Precedence: defaults, file, drop-ins (*.conf,
// lexically), flags.
func Load(flags Flags) (*Config, error) {
	c := &Config{}
	if err := c.join(flags); err != nil {
		return nil, err
	}
	if flags.Config != "" {
		if err := c.readFile(flags.Config); err != nil {
			return nil, err
		}
	}
	dropins, err := dropIns(flags.ConfigDir)
	if err != nil {
		return nil, err
	}
	for _, path := range dropins {
		if err := c.readFile(path); err != nil {
			return nil, err
		}
	}
	c.override(flags)
	if err := c.layFlags(flags.Kubelet); err != nil {
		return nil, err
	}
	if err := c.setDefaults(); err != nil {
		return nil, err
	}
	slices.Sort(c.Unused)
	c.Unused = slices.Compact(c.Unused)
	return c, c.check()
}

// dropIns lists the *.conf files below dir in lexical order of their paths.
func dropIns(dir string) ([]string, error) {
	if dir == "" {
		return nil, nil
	}
	var all []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && filepath.Ext(path) == ".conf" {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the drop-in directory: %w", err)
	}
	return all, nil
}

func (c *Config) readFile(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("read the configuration %s: it is not a regular file", path)
	}
	if st.Size() > maxFile {
		return fmt.Errorf("read the configuration %s: it has %d bytes, more than %d", path, st.Size(), maxFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	docs, err := split(text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, d := range docs {
		if err := c.decode(path, d); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// decode lays one document over what is there.
func (c *Config) decode(path string, d document) error {
	switch gvk := d.apiVersion + "/" + d.kind; gvk {
	case "kubelet.config.k8s.io/v1beta1/KubeletConfiguration":
		if err := d.into(&c.Kubelet); err != nil {
			return err
		}
		c.noteUnused(path, d, reflect.TypeFor[kubeletv1beta1.KubeletConfiguration](), c.acts)
		c.noteOrigins(originKubelet, path, d.root)
	case "kubeproxy.config.k8s.io/v1alpha1/KubeProxyConfiguration":
		return c.decodeProxy(path, d)
	case APIVersion + "/NodeAgentConfiguration":
		c.noteOrigins(originAgent, path, d.root)
		return d.into(&c.Agent)
	case "/":
		return fmt.Errorf("line %d: the document has no apiVersion and kind", d.line)
	default:
		return fmt.Errorf("line %d: unknown kind %s in %s; known are KubeletConfiguration, KubeProxyConfiguration and NodeAgentConfiguration (%s)", d.line, d.kind, d.apiVersion, APIVersion)
	}
	return nil
}

// usedKubelet are the fields of KubeletConfiguration that the daemon acts on.
var usedKubelet = []string{
	"apiVersion", "kind", "staticPodPath", "fileCheckFrequency", "staticPodURL", "staticPodURLHeader", "httpCheckFrequency", "podLogsDir", "cgroupRoot", "cgroupDriver",
	"clusterDNS", "clusterDomain", "resolvConf", "podCIDR", "podPidsLimit", "healthzPort", "healthzBindAddress",
	"containerLogMaxSize", "containerLogMaxFiles", "containerRuntimeEndpoint", "seccompDefault", "allowedUnsafeSysctls",
	"cpuCFSQuota", "cpuCFSQuotaPeriod", "singleProcessOOMKill", "serializeImagePulls", "maxParallelImagePulls",
	"registryPullQPS", "registryBurst", "volumeStatsAggPeriod",
	"shutdownGracePeriod", "shutdownGracePeriodCriticalPods", "shutdownGracePeriodByPodPriority",
	"imagePullCredentialsVerificationPolicy", "preloadedImagesVerificationAllowlist",
}

// noteUnused remembers the fields that say something and that nobody acts on. Of
// one that may be left out, false and 0 say something, too.
func (c *Config) noteUnused(path string, d document, of reflect.Type, acts func(field string) bool) {
	for i, field := range d.fields {
		value, kind := d.root.Content[2*i+1], fieldNamed(of, field).Kind()
		silent := value.Tag == "!!null" || empty(value) && kind != reflect.Pointer && (kind != reflect.String || value.Value == "")
		if field != "apiVersion" && field != "kind" && !acts(field) && !silent {
			c.Unused = append(c.Unused, fmt.Sprintf("%s: %s.%s", filepath.Base(path), d.kind, field))
		}
	}
}

func (c *Config) override(f Flags) {
	set := func(to *string, v, path, flag string) {
		if v != "" {
			*to = v
			c.origin(path, flag)
		}
	}
	set(&c.Kubelet.StaticPodPath, f.PodManifestPath, originKubelet+".staticPodPath", "--pod-manifest-path")
	set(&c.Kubelet.ContainerRuntimeEndpoint, f.ContainerRuntimeEndpoint, originKubelet+".containerRuntimeEndpoint", "--container-runtime-endpoint")
	set(&c.RootDir, f.RootDir, "rootDir", "--root-dir")
	set(&c.NodeName, strings.ToLower(strings.TrimSpace(f.HostnameOverride)), "nodeName", "--hostname-override")
	if f.NodeIP != "" {
		c.NodeIPs = strings.Split(f.NodeIP, ",")
		c.origin("nodeIPs", "--node-ip")
	}
	for field, v := range map[string][2]string{
		"kubeconfig": {f.Kubeconfig, "--kubeconfig"}, "bootstrapKubeconfig": {f.BootstrapKubeconfig, "--bootstrap-kubeconfig"},
		"certDir": {f.CertDir, "--cert-dir"}, "labels": {f.NodeLabels, "--node-labels"}, "externalCloud": {f.CloudProvider, "--cloud-provider"},
	} {
		if v[0] != "" {
			c.origin(originCluster+"."+field, v[1])
		}
	}
}

// IsInvalid tells that an error is the configuration's own and not the host's.
func IsInvalid(err error) bool { return err != nil && !errors.Is(err, fs.ErrPermission) }
