package worker

import (
	"context"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/pod"
)

type podUID = types.UID

// sandboxConfig says in CRI's words what sandbox the pod needs.
func (s *Set) sandboxConfig(ctx context.Context, d pod.Desired, attempt uint32) (*runtimeapi.PodSandboxConfig, error) {
	p := d.Pod
	parent, err := s.ensureCgroup(ctx, d)
	if err != nil {
		return nil, err
	}
	hostname, err := s.cfg.Files.Hostname(p)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: p.Name, Namespace: p.Namespace, Uid: string(p.UID), Attempt: attempt},
		Hostname:     hostname,
		LogDirectory: s.cfg.Dirs.LogDirectory(p.UID, p.Namespace, p.Name),
		PortMappings: portMappings(p),
		Labels:       podLabels(p),
		Annotations:  networkAnnotations(p),
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: parent,
			Sysctls:      sysctls(p),
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: namespaceOptions(p),
				Privileged:       anyPrivileged(p),
			},
		},
	}, nil
}

// podLabels are the labels by which a record tells its pod.
func podLabels(p *corev1.Pod) map[string]string {
	grace := int64(30)
	if p.Spec.TerminationGracePeriodSeconds != nil {
		grace = *p.Spec.TerminationGracePeriodSeconds
	}
	return map[string]string{
		pod.LabelPodName:      p.Name,
		pod.LabelPodNamespace: p.Namespace,
		pod.LabelPodUID:       string(p.UID),
		pod.LabelGrace:        strconv.FormatInt(grace, 10),
	}
}

// networkAnnotations are the two annotations that CNI plugins act on; no other
// one goes any further.
func networkAnnotations(p *corev1.Pod) map[string]string {
	var out map[string]string
	for _, key := range []string{"kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"} {
		if v, ok := p.Annotations[key]; ok {
			if out == nil {
				out = map[string]string{}
			}
			out[key] = v
		}
	}
	return out
}

func namespaceOptions(p *corev1.Pod) *runtimeapi.NamespaceOption {
	o := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	if p.Spec.HostNetwork {
		o.Network = runtimeapi.NamespaceMode_NODE
	}
	if p.Spec.HostIPC {
		o.Ipc = runtimeapi.NamespaceMode_NODE
	}
	switch {
	case p.Spec.HostPID:
		o.Pid = runtimeapi.NamespaceMode_NODE
	case p.Spec.ShareProcessNamespace != nil && *p.Spec.ShareProcessNamespace:
		o.Pid = runtimeapi.NamespaceMode_POD
	}
	return o
}

// anyPrivileged tells whether a container of the pod is privileged, which its
// sandbox has to allow.
func anyPrivileged(p *corev1.Pod) bool {
	privileged := func(c corev1.Container) bool { return c.SecurityContext != nil && is(c.SecurityContext.Privileged) }
	return slices.ContainsFunc(p.Spec.InitContainers, privileged) || slices.ContainsFunc(p.Spec.Containers, privileged)
}

func portMappings(p *corev1.Pod) []*runtimeapi.PortMapping {
	if p.Spec.HostNetwork {
		return nil // the ports are the node's already
	}
	var all []*runtimeapi.PortMapping
	for i := range p.Spec.Containers {
		for _, port := range p.Spec.Containers[i].Ports {
			if port.HostPort == 0 {
				continue
			}
			all = append(all, &runtimeapi.PortMapping{
				Protocol:      protocol(port.Protocol),
				ContainerPort: port.ContainerPort,
				HostPort:      port.HostPort,
				HostIp:        port.HostIP,
			})
		}
	}
	return all
}

func protocol(p corev1.Protocol) runtimeapi.Protocol {
	switch p {
	case corev1.ProtocolUDP:
		return runtimeapi.Protocol_UDP
	case corev1.ProtocolSCTP:
		return runtimeapi.Protocol_SCTP
	default:
		return runtimeapi.Protocol_TCP
	}
}

func sysctls(p *corev1.Pod) map[string]string {
	if p.Spec.SecurityContext == nil || len(p.Spec.SecurityContext.Sysctls) == 0 {
		return nil
	}
	all := map[string]string{}
	for _, s := range p.Spec.SecurityContext.Sysctls {
		all[s.Name] = s.Value
	}
	return all
}

// sandboxAttempt finds the attempt of a sandbox that is known by its id.
func (s *Set) sandboxAttempt(uid types.UID, id string) uint32 {
	for _, sandbox := range s.cfg.Runtime.Observe(uid).Sandboxes {
		if sandbox.ID == id {
			return sandbox.Attempt
		}
	}
	return 0
}

func splitName(full string) (namespace, name string) {
	namespace, name, _ = strings.Cut(full, "/")
	return namespace, name
}
