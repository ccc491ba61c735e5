package config

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeproxyv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// APIVersion of NodeAgentConfiguration.
const APIVersion = "nodeagent/v1alpha1"

// NodeAgentConfiguration is what the two upstream types lack.
type NodeAgentConfiguration struct {
	metav1.TypeMeta `json:",inline"`

	// StateDir holds what must survive a reboot. Default /var/lib/nodeagent.
	StateDir string `json:"stateDir,omitempty"`
	// RunDir holds what lasts until a reboot: socket, namespaces, exit
	// records. Default /run/nodeagent.
	RunDir string `json:"runDir,omitempty"`
	// PodNetwork is used where there is neither a CNI configuration nor a pod
	// CIDR of the node.
	PodNetwork PodNetwork `json:"podNetwork,omitempty"`
	// Runtimes by handler name; "" is the default handler. A pod asks for another
	// by its runtimeClassName.
	Runtimes map[string]Runtime `json:"runtimes,omitempty"`
	// RegistryConfigDir holds <host>/hosts.toml with the mirrors, CAs and
	// settings of registries, as containerd's CRI plugin reads it. Default
	// /etc/containerd/certs.d.
	RegistryConfigDir string `json:"registryConfigDir,omitempty"`
	// ImagesDir holds archives of images, which are imported when they appear
	// and pinned. Default images below StateDir.
	ImagesDir string `json:"imagesDir,omitempty"`
	// MemoryLimitBytes is a soft limit of the daemon's own heap (GOMEMLIMIT);
	// 0: the environment decides.
	MemoryLimitBytes int64 `json:"memoryLimitBytes,omitempty"`
	// ObeyShortLists ends pods at once when a list of the API server suddenly
	// lacks most of those that run, as kubelet does. By default such a list is
	// believed when the server, asked again after 30 s, says the same.
	ObeyShortLists bool `json:"obeyShortLists,omitempty"`
	// ProxyOnly: the daemon programs the rules of services and does nothing else,
	// in place of kube-proxy on a node that keeps its kubelet.
	ProxyOnly bool `json:"proxyOnly,omitempty"`
}

// PodNetwork says where pods' addresses come from.
type PodNetwork struct {
	// CIDRs, at most one of each family.
	CIDRs []string `json:"cidrs,omitempty"`
	// Bridge is the name of the bridge. Default nodeagent0.
	Bridge string `json:"bridge,omitempty"`
	// MTU of pods' interfaces; 0: the default route's.
	MTU int `json:"mtu,omitempty"`
	// CNIConfDir, default /etc/cni/net.d; a configuration there comes first.
	CNIConfDir string `json:"cniConfDir,omitempty"`
	// CNIBinDir, default /opt/cni/bin.
	CNIBinDir string `json:"cniBinDir,omitempty"`
}

// Runtime is one way to run containers.
type Runtime struct {
	// Binary is the OCI runtime; default runc, looked up by containerd's shim.
	Binary string `json:"binary,omitempty"`
	// Shim is containerd's name of the shim; default ours.
	Shim string `json:"shim,omitempty"`
	// Snapshotter of the images; default overlayfs.
	Snapshotter string `json:"snapshotter,omitempty"`
}

// Flags are what the command line sets; an empty value sets nothing.
type Flags struct {
	Config, ConfigDir        string
	RootDir                  string
	PodManifestPath          string
	HostnameOverride         string
	NodeIP                   string
	ContainerRuntimeEndpoint string
	SeccompDir               string
	// Of the node of a cluster; without Kubeconfig it stands alone.
	Kubeconfig, BootstrapKubeconfig, CertDir string
	NodeLabels, CloudProvider                string
	// Kubelet are those of KubeletFlags that were given, by name.
	Kubelet map[string]string
}

// Config is the merged result: every default is filled in.
type Config struct {
	Kubelet kubeletv1beta1.KubeletConfiguration
	Agent   NodeAgentConfiguration
	// Proxy is nil where nobody said anything of services.
	Proxy    *kubeproxyv1alpha1.KubeProxyConfiguration `json:",omitempty"`
	RootDir  string                                    // --root-dir
	NodeName string                                    // --hostname-override, or the host's name
	NodeIPs  []string                                  // --node-ip; empty: found on the host
	// Cluster is nil where the node stands alone.
	Cluster *Cluster `json:",omitempty"`
	// Unused lists fields that were set and that this version does not act on,
	// as "file: field".
	Unused []string
	// Origin says who set a value: its path ("kubelet.a.b", "agent.a", "nodeName")
	// to a file or a flag. What is not there is at its default.
	Origin map[string]string `json:"-"`
}
