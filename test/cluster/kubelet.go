package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nodeagent/test/bed"
)

// Kubelet starts kubelet as a node and waits until it is healthy; the node is
// Ready a little later. The bed must be Private and have the CRI plugin and the
// images: kubelet has paths that no flag moves, and settings of the whole
// machine that it changes, so it gets a /var and a few files of /proc/sys of its
// own.
func (c *Cluster) Kubelet(ctx context.Context, name string) (*Component, error) {
	tools, err := Peers(ctx, c.opts.Talk)
	if err != nil {
		return nil, err
	}
	kubeconfig, err := c.Node(name)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(c.dir, "kubelet")
	for _, d := range []string{dir, filepath.Join(dir, "manifests"), filepath.Join(dir, "volume-plugins"), c.bed.CNIConfig()} {
		// containerd may have made the last one already: it watches it.
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	if err := c.bed.Do(func() error { return hideFromKubelet(dir) }); err != nil {
		return nil, fmt.Errorf("keep kubelet off the machine's own files: %w", err)
	}
	if err := os.WriteFile(filepath.Join(c.bed.CNIConfig(), "10-bridge.conflist"), []byte(cniConfig(dir)), 0o644); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, []byte(c.kubeletConfig(dir)), 0o600); err != nil {
		return nil, err
	}
	p := c.component(tools, "kubelet", answers("http://127.0.0.1:10248/healthz"), []string{
		"--config=" + config, "--kubeconfig=" + kubeconfig,
		"--root-dir=" + filepath.Join(dir, "root"), "--cert-dir=" + filepath.Join(dir, "pki"),
		"--hostname-override=" + name, "--node-ip=" + bed.NodeIP,
	})
	return p, p.Start(ctx)
}

func (c *Cluster) kubeletConfig(dir string) string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %q}}
authorization: {mode: Webhook}
address: %[2]s
clusterDNS: [%[2]s]
clusterDomain: %[3]s
containerRuntimeEndpoint: %[4]q
cgroupRoot: %[5]q
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
staticPodPath: %[6]q
podLogsDir: %[7]q
volumePluginDir: %[8]q
# A machine that others fill is no reason to evict here.
evictionHard: {memory.available: 1Mi, nodefs.available: 1%%, nodefs.inodesFree: 1%%, imagefs.available: 1%%, imagefs.inodesFree: 1%%}
imageGCHighThresholdPercent: 100
`, c.CA(), bed.NodeIP, Domain, "unix://"+c.bed.Address(), c.bed.CgroupRoot(),
		filepath.Join(dir, "manifests"), filepath.Join(dir, "pods"), filepath.Join(dir, "volume-plugins"))
}

// cniConfig gives pods the addresses of the first node's pod CIDR.
func cniConfig(dir string) string {
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "bed", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": {
    "type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
`, filepath.Join(dir, "ipam"))
}

// sysctls are what kubelet sets for the whole machine.
var sysctls = []string{
	"kernel/keys/root_maxbytes", "kernel/keys/root_maxkeys", "kernel/panic", "kernel/panic_on_oops",
	"vm/overcommit_memory", "vm/panic_on_oom",
}

// hideFromKubelet mounts, in the mount namespace of the calling thread, a layer
// below dir over /var and files over sysctls.
func hideFromKubelet(dir string) error {
	mine, err := os.Readlink("/proc/thread-self/ns/mnt")
	if err != nil {
		return err
	}
	if all, err := os.Readlink("/proc/self/ns/mnt"); err != nil || all == mine {
		return errors.Join(errors.New("the bed is not Private"), err)
	}
	upper, work, values := filepath.Join(dir, "var"), filepath.Join(dir, "var.work"), filepath.Join(dir, "sys")
	for _, d := range []string{upper, work, values} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	layers := fmt.Sprintf("lowerdir=/var,upperdir=%s,workdir=%s", upper, work)
	if err := unix.Mount("overlay", "/var", "overlay", 0, layers); err != nil {
		return fmt.Errorf("mount a layer over /var: %w", err)
	}
	for _, s := range sysctls {
		from, to := filepath.Join(values, filepath.Base(s)), filepath.Join("/proc/sys", s)
		value, err := os.ReadFile(to)
		if err != nil {
			return err
		}
		if err := os.WriteFile(from, value, 0o644); err != nil {
			return err
		}
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount over %s: %w", to, err)
		}
	}
	return nil
}
