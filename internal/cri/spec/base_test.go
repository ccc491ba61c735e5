package spec

import (
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// base is an ordinary container of an ordinary pod on a cgroup v1 node.
func base() Input {
	return Input{
		ContainerID: "c1",
		Sandbox: &runtimeapi.PodSandboxConfig{
			Hostname: "pod-1",
			Linux: &runtimeapi.LinuxPodSandboxConfig{
				CgroupParent:    "/kubepods/burstable/podabc",
				SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: podNamespaces()},
			},
		},
		Container: &runtimeapi.ContainerConfig{
			Command: []string{"/bin/app"},
			Args:    []string{"-v"},
			Envs:    []*runtimeapi.KeyValue{{Key: "A", Value: []byte("1")}},
			Mounts: []*runtimeapi.Mount{
				{ContainerPath: "/data/in", HostPath: "/var/lib/kubelet/pods/u/volumes/in", Readonly: true},
				{ContainerPath: "/data", HostPath: "/var/lib/kubelet/pods/u/volumes/data"},
				{ContainerPath: "/etc/hosts", HostPath: "/var/lib/kubelet/pods/u/etc-hosts"},
			},
			Linux: &runtimeapi.LinuxContainerConfig{
				Resources: &runtimeapi.LinuxContainerResources{
					CpuShares: 102, CpuPeriod: 100000, CpuQuota: 20000,
					MemoryLimitInBytes: 64 << 20, OomScoreAdj: 900,
				},
				SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: podNamespaces()},
			},
		},
		Image: ocispec.ImageConfig{
			Env:        []string{"PATH=/bin", "A=0", "B=2"},
			Entrypoint: []string{"/entry"},
			Cmd:        []string{"cmd"},
			WorkingDir: "/work/",
			Labels:     map[string]string{"containerd.io/gc.root": "x", "org.example": "y"},
		},
		Host:        Host{Swap: true, Hugetlb: true, Seccomp: true, OOMScoreAdjMin: -1000},
		Namespaces:  Namespaces{Net: "/run/netns/cni-1", IPC: "/run/nodeagent/ns/s1/ipc", UTS: "/run/nodeagent/ns/s1/uts"},
		User:        specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{1000, 2000}},
		ShmPath:     "/run/nodeagent/ns/s1/shm",
		CgroupsPath: "/kubepods/burstable/podabc/c1",
		Group:       "s1",
	}
}

func podNamespaces() *runtimeapi.NamespaceOption {
	return &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
}

// security is the container's security context of an input.
func security(in *Input) *runtimeapi.LinuxContainerSecurityContext {
	return in.Container.Linux.SecurityContext
}

func makePrivileged(in *Input) {
	security(in).Privileged = true
	in.Sandbox.Linux.SecurityContext.Privileged = true
	mode, uid := hostMode(0o660), uint32(0)
	in.HostDevices = []specs.LinuxDevice{{Path: "/dev/kvm", Type: "c", Major: 10, Minor: 232, FileMode: &mode, UID: &uid, GID: &uid}}
}
