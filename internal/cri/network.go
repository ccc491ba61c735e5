package cri

import (
	"context"
	"net/netip"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Network gives a sandbox its interfaces and addresses. Setup rolls back what
// it did when it fails; Teardown is idempotent and works when the network
// namespace is already gone.
type Network interface {
	Ready() error
	Setup(context.Context, NetRequest) (NetResult, error)
	Teardown(context.Context, NetRequest) error
}

// NetRequest names a sandbox to its network.
type NetRequest struct {
	SandboxID            string
	Netns                string // path of the pinned namespace
	Namespace, Name, UID string // of the pod
	Ports                []PortMapping
	Annotations          map[string]string // of the pod; hostile
}

// PortMapping is a port of the host that leads into the pod.
type PortMapping struct {
	Protocol                string // TCP, UDP, SCTP
	ContainerPort, HostPort int32
	HostIP                  string
}

// NetResult is what Setup gave the sandbox.
type NetResult struct{ Addrs []netip.Addr }

func netRequest(id, netns string, config *runtimeapi.PodSandboxConfig) NetRequest {
	meta := config.GetMetadata()
	r := NetRequest{
		SandboxID: id, Netns: netns,
		Namespace: meta.GetNamespace(), Name: meta.GetName(), UID: meta.GetUid(),
		Annotations: config.GetAnnotations(),
	}
	for _, p := range config.GetPortMappings() {
		if p.GetHostPort() == 0 {
			continue
		}
		r.Ports = append(r.Ports, PortMapping{
			Protocol:      p.GetProtocol().String(),
			ContainerPort: p.GetContainerPort(), HostPort: p.GetHostPort(), HostIP: p.GetHostIp(),
		})
	}
	return r
}
