package pod

import (
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Service is what variables tell of a service.
type Service struct {
	Namespace, Name, ClusterIP string
	Ports                      []ServicePort
}

// ServicePort is one port of a service.
type ServicePort struct {
	Name, Protocol string
	Port           int32
}

// APIService is the API server's own service in the default namespace, of which
// every pod is told.
const APIService = "kubernetes"

// ServiceOf is what variables tell of s; ok is false where they tell nothing,
// since it has no address.
func ServiceOf(s *corev1.Service) (_ Service, ok bool) {
	if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 {
		return Service{}, false
	}
	kept := Service{Namespace: s.Namespace, Name: s.Name, ClusterIP: s.Spec.ClusterIP, Ports: make([]ServicePort, len(s.Spec.Ports))}
	for i, p := range s.Spec.Ports {
		kept.Ports[i] = ServicePort{Name: p.Name, Protocol: string(p.Protocol), Port: p.Port}
		if p.Protocol == "" {
			kept.Ports[i].Protocol = string(corev1.ProtocolTCP)
		}
	}
	return kept, true
}

// Variables adds what a container is told of the service, in the forms of
// Kubernetes and of Docker's links (kubelet, envvars.FromServices).
func (s *Service) Variables(to map[string]string) {
	name := variableName(s.Name)
	to[name+"_SERVICE_HOST"] = s.ClusterIP
	to[name+"_SERVICE_PORT"] = strconv.Itoa(int(s.Ports[0].Port))
	for i := range s.Ports {
		p := &s.Ports[i]
		port, protocol := strconv.Itoa(int(p.Port)), strings.ToLower(p.Protocol)
		if p.Name != "" {
			to[name+"_SERVICE_PORT_"+variableName(p.Name)] = port
		}
		url := protocol + "://" + net.JoinHostPort(s.ClusterIP, port)
		if i == 0 {
			to[name+"_PORT"] = url
		}
		link := name + "_PORT_" + port + "_" + strings.ToUpper(p.Protocol)
		to[link], to[link+"_PROTO"], to[link+"_PORT"], to[link+"_ADDR"] = url, protocol, port, s.ClusterIP
	}
}

func variableName(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }

// IsStatic tells that a pod is of a manifest of the node, and not of the API
// server: it must start without one.
func IsStatic(p *corev1.Pod) bool { return static(p) }
