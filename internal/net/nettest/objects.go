// Package nettest holds what tests of the service proxy share: short ways to
// write Services and EndpointSlices, dice that make them, and an oracle that
// says what becomes of a packet. The oracle reads API objects by itself, slowly
// and without the Model, so that a mistake has to be made twice to pass.
//
// No product code imports it. Its functions may be called from any goroutine.
package nettest

import (
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nodeagent/internal/net"
)

// Service makes a Service of the namespace "default" with cluster IPs.
func Service(name string, clusterIPs []string, change ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, CreationTimestamp: metav1.NewTime(time.Unix(1000, 0))},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIPs: clusterIPs,
			ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyCluster,
		},
	}
	if len(clusterIPs) > 0 {
		s.Spec.ClusterIP = clusterIPs[0]
	}
	for _, f := range change {
		f(s)
	}
	return s
}

// Port adds a port; nodePort 0 is none.
func Port(name string, proto corev1.Protocol, port, nodePort int32) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: name, Protocol: proto, Port: port, NodePort: nodePort})
		if nodePort != 0 && s.Spec.Type == corev1.ServiceTypeClusterIP {
			s.Spec.Type = corev1.ServiceTypeNodePort
		}
	}
}

// External adds externalIPs.
func External(ips ...string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.ExternalIPs = append(s.Spec.ExternalIPs, ips...) }
}

// Balanced makes it a Service with addresses of a load balancer.
func Balanced(ips ...string) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		for _, ip := range ips {
			s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip})
		}
	}
}

// LocalOutside sets externalTrafficPolicy Local.
func LocalOutside(s *corev1.Service) {
	s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
}

// LocalInside sets internalTrafficPolicy Local.
func LocalInside(s *corev1.Service) {
	p := corev1.ServiceInternalTrafficPolicyLocal
	s.Spec.InternalTrafficPolicy = &p
}

// Affinity sets the affinity of clients' addresses; 0 s leaves the time out.
func Affinity(seconds int32) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		if seconds != 0 {
			s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
		}
	}
}

// Ranges sets the source ranges of load balancer addresses.
func Ranges(cidrs ...string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = cidrs }
}

// Slice makes an EndpointSlice of a Service of the namespace "default"; its type
// is that of its first endpoint.
func Slice(name, service string, parts ...func(*discoveryv1.EndpointSlice)) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, f := range parts {
		f(s)
	}
	if len(s.Endpoints) > 0 && len(s.Endpoints[0].Addresses) > 0 {
		if a, err := netip.ParseAddr(s.Endpoints[0].Addresses[0]); err == nil && a.Is6() {
			s.AddressType = discoveryv1.AddressTypeIPv6
		}
	}
	return s
}

// To adds a port to a slice.
func To(name string, proto corev1.Protocol, port int32) func(*discoveryv1.EndpointSlice) {
	return func(s *discoveryv1.EndpointSlice) {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &name, Protocol: &proto, Port: &port})
	}
}

// At adds an endpoint that is ready; the node's name may be empty.
func At(ip, node string, change ...func(*discoveryv1.Endpoint)) func(*discoveryv1.EndpointSlice) {
	return func(s *discoveryv1.EndpointSlice) {
		e := discoveryv1.Endpoint{Addresses: []string{ip}}
		if node != "" {
			e.NodeName = &node
		}
		conditions(true, true, false)(&e)
		for _, f := range change {
			f(&e)
		}
		s.Endpoints = append(s.Endpoints, e)
	}
}

func conditions(ready, serving, terminating bool) func(*discoveryv1.Endpoint) {
	return func(e *discoveryv1.Endpoint) {
		e.Conditions = discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating}
	}
}

// Draining is an endpoint that ends but still serves, Gone one that ends and
// does not, NotReady one that may come.
func Draining(e *discoveryv1.Endpoint) { conditions(false, true, true)(e) }

// Gone is an endpoint that ends and serves no more.
func Gone(e *discoveryv1.Endpoint) { conditions(false, false, true)(e) }

// NotReady is an endpoint that does not serve yet.
func NotReady(e *discoveryv1.Endpoint) { conditions(false, false, false)(e) }

// ForZones adds hints for zones.
func ForZones(zones ...string) func(*discoveryv1.Endpoint) {
	return func(e *discoveryv1.Endpoint) {
		if e.Hints == nil {
			e.Hints = &discoveryv1.EndpointHints{}
		}
		for _, z := range zones {
			e.Hints.ForZones = append(e.Hints.ForZones, discoveryv1.ForZone{Name: z})
		}
	}
}

// ForNodes adds hints for nodes.
func ForNodes(nodes ...string) func(*discoveryv1.Endpoint) {
	return func(e *discoveryv1.Endpoint) {
		if e.Hints == nil {
			e.Hints = &discoveryv1.EndpointHints{}
		}
		for _, n := range nodes {
			e.Hints.ForNodes = append(e.Hints.ForNodes, discoveryv1.ForNode{Name: n})
		}
	}
}

// Many makes n Services of one port with each endpoints in one slice, spread
// over IPv4 addresses that do not repeat, a tenth of them on node "here".
func Many(n, each int) ([]*corev1.Service, []*discoveryv1.EndpointSlice) {
	var svcs []*corev1.Service
	var slices []*discoveryv1.EndpointSlice
	for i := range n {
		name := fmt.Sprintf("service-%05d", i)
		svcs = append(svcs, Service(name, []string{fmt.Sprintf("10.96.%d.%d", i/250, i%250+1)}, Port("http", corev1.ProtocolTCP, 80, 0)))
		parts := []func(*discoveryv1.EndpointSlice){To("http", corev1.ProtocolTCP, 8080)}
		for j := range each {
			node := "elsewhere"
			if (i+j)%10 == 0 {
				node = "here"
			}
			x := i*each + j
			parts = append(parts, At(fmt.Sprintf("10.%d.%d.%d", 128+x/62500, x/250%250, x%250+1), node))
		}
		slices = append(slices, Slice(name+"-x7k2p", name, parts...))
	}
	return svcs, slices
}

// Filled is a model of services and their endpoints, of which nobody is owed a change.
func Filled(node net.Node, services []*corev1.Service, endpoints []*discoveryv1.EndpointSlice) *net.Model {
	m := net.NewModel(node)
	for _, s := range services {
		m.SetService(s)
	}
	for _, s := range endpoints {
		m.SetSlice(s)
	}
	m.Take()
	return m
}
