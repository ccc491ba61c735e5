package nettest

import (
	"fmt"
	"math/rand"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

func one[T any](r *rand.Rand, xs ...T) T { return xs[r.Intn(len(xs))] }

func some[T any](r *rand.Rand, most int, f func() T) []T {
	var out []T
	for range r.Intn(most + 1) {
		out = append(out, f())
	}
	return out
}

// RandomServiceName is one of few, so that things meet.
func RandomServiceName(r *rand.Rand) string { return one(r, "a", "b", "c", "d", "e") }

// RandomSliceName is one of few.
func RandomSliceName(r *rand.Rand) string { return one(r, "s1", "s2", "s3", "s4", "s5", "s6") }

func randomProto(r *rand.Rand) corev1.Protocol {
	return one(r, corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP, "", "DCCP")
}

// RandomService is a Service of a small world in which addresses and ports are
// often wanted twice and some are nonsense.
func RandomService(r *rand.Rand) *corev1.Service {
	ip := func() string {
		return one(r, "10.96.0.1", "10.96.0.2", "10.96.0.3", "fd96::1", "fd96::2", "1.1.1.1", "2001:db8::1", "192.168.0.1", "127.0.0.1", "fe80::1", "", "None", "x")
	}
	s := Service(RandomServiceName(r), some(r, 3, ip))
	s.CreationTimestamp.Time = time.Unix(int64(r.Intn(3)), 0)
	s.Spec.Type = one(r, corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeLoadBalancer)
	for range r.Intn(4) {
		Port(one(r, "", "p", "q"), randomProto(r), one[int32](r, 80, 81, 0, 65536, -1), one[int32](r, 0, 30000, 30001, 70000))(s)
	}
	External(some(r, 2, ip)...)(s)
	for _, x := range some(r, 2, ip) {
		i := corev1.LoadBalancerIngress{IP: x}
		if m := one(r, "", corev1.LoadBalancerIPModeVIP, corev1.LoadBalancerIPModeProxy); m != "" {
			i.IPMode = &m
		}
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, i)
	}
	Ranges(some(r, 3, func() string {
		return one(r, "10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "fd00::/8", "192.168.0.0/24", " 9.9.9.9/32 ", "x", "1.2.3.4/33", "fd00::1")
	})...)(s)
	for _, f := range some(r, 3, func() func(*corev1.Service) {
		return one(r, LocalInside, LocalOutside, Affinity(0), Affinity(60), Affinity(-1))
	}) {
		f(s)
	}
	s.Spec.HealthCheckNodePort = one[int32](r, 0, 32000, 32001, 70000)
	return s
}

// RandomSlice is an EndpointSlice of the same world.
func RandomSlice(r *rand.Rand) *discoveryv1.EndpointSlice {
	s := Slice(RandomSliceName(r), one(r, RandomServiceName(r), RandomServiceName(r), RandomServiceName(r), ""))
	for range r.Intn(3) {
		To(one(r, "", "p", "q"), randomProto(r), one[int32](r, 8080, 9090, 0, 70000))(s)
	}
	for range r.Intn(6) {
		At(one(r, "10.0.0.1", "10.0.0.2", "10.0.0.3", "fd10::1", "fd10::2", "127.0.0.1", "169.254.0.1", "224.0.0.1", "fe80::1%x", "::ffff:10.0.0.1", "x"),
			one(r, "", "here", "there"), randomEndpoint(r)...)(s)
	}
	s.AddressType = one(r, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN)
	return s
}

func randomEndpoint(r *rand.Rand) []func(*discoveryv1.Endpoint) {
	return some(r, 2, func() func(*discoveryv1.Endpoint) {
		return one(r, Draining, Gone, NotReady, ForZones("a"), ForZones("b"), ForZones("a", "b"), ForNodes("here"), ForNodes("there"))
	})
}

// RandomCluster is free of conflicts and bad addresses, as the oracle wants it.
func RandomCluster(r *rand.Rand) ([]*corev1.Service, []*discoveryv1.EndpointSlice) {
	var services []*corev1.Service
	var endpoints []*discoveryv1.EndpointSlice
	for i := range 1 + r.Intn(3) {
		name := fmt.Sprintf("s%d", i)
		s := Service(name, []string{fmt.Sprintf("10.96.0.%d", i+1), fmt.Sprintf("fd96::%d", i+1)})
		for j := range 1 + r.Intn(2) {
			Port(fmt.Sprintf("p%d", j), one(r, corev1.ProtocolTCP, corev1.ProtocolUDP), int32(80+j), int32(one(r, 0, 30000+10*i+j)))(s)
		}
		for _, f := range some(r, 4, func() func(*corev1.Service) {
			return one(r, LocalInside, LocalOutside, Affinity(0), External(fmt.Sprintf("1.1.1.%d", i+1), fmt.Sprintf("2001:db8::%d", i+1)), Balanced(fmt.Sprintf("2.2.2.%d", i+1)))
		}) {
			f(s)
		}
		services = append(services, s)
		for k, net := range []string{"10.0.0.%d", "fd10::%d"} {
			parts := []func(*discoveryv1.EndpointSlice){To("p0", corev1.ProtocolTCP, 8080), To("p0", corev1.ProtocolUDP, 8080), To("p1", corev1.ProtocolTCP, 8081), To("p1", corev1.ProtocolUDP, 8081)}
			for e := range r.Intn(4) {
				parts = append(parts, At(fmt.Sprintf(net, 10*i+e+1), one(r, "here", "there"), randomEndpoint(r)...))
			}
			endpoints = append(endpoints, Slice(fmt.Sprintf("%s-%d", name, k), name, parts...))
		}
	}
	return services, endpoints
}
