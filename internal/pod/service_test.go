package pod

import (
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestServiceVariables: the names and values that kubelet gives.
func TestServiceVariables(t *testing.T) {
	s, ok := ServiceOf(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "redis-primary"}, Spec: corev1.ServiceSpec{
		ClusterIP: "10.0.0.11", Ports: []corev1.ServicePort{{Port: 6379, Protocol: "TCP"}, {Name: "u-d", Port: 8083, Protocol: "UDP"}}}})
	got := map[string]string{}
	s.Variables(got)
	want := map[string]string{
		"REDIS_PRIMARY_SERVICE_HOST": "10.0.0.11", "REDIS_PRIMARY_SERVICE_PORT": "6379", "REDIS_PRIMARY_SERVICE_PORT_U_D": "8083",
		"REDIS_PRIMARY_PORT": "tcp://10.0.0.11:6379", "REDIS_PRIMARY_PORT_6379_TCP": "tcp://10.0.0.11:6379",
		"REDIS_PRIMARY_PORT_6379_TCP_PROTO": "tcp", "REDIS_PRIMARY_PORT_6379_TCP_PORT": "6379", "REDIS_PRIMARY_PORT_6379_TCP_ADDR": "10.0.0.11",
		"REDIS_PRIMARY_PORT_8083_UDP": "udp://10.0.0.11:8083", "REDIS_PRIMARY_PORT_8083_UDP_PROTO": "udp",
		"REDIS_PRIMARY_PORT_8083_UDP_PORT": "8083", "REDIS_PRIMARY_PORT_8083_UDP_ADDR": "10.0.0.11",
	}
	if !ok || !maps.Equal(got, want) {
		t.Errorf("the variables are\n%v\nwant\n%v", got, want)
	}
	six, _ := ServiceOf(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "six"}, Spec: corev1.ServiceSpec{ClusterIP: "fd00::1", Ports: []corev1.ServicePort{{Port: 1}}}})
	six.Variables(got)
	if got["SIX_PORT"] != "tcp://[fd00::1]:1" || got["SIX_PORT_1_TCP_ADDR"] != "fd00::1" {
		t.Errorf("of an IPv6 service: %s, %s", got["SIX_PORT"], got["SIX_PORT_1_TCP_ADDR"])
	}
	for what, spec := range map[string]corev1.ServiceSpec{
		"headless": {ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Port: 1}}},
		"external": {ExternalName: "x", Ports: []corev1.ServicePort{{Port: 1}}},
		"no ports": {ClusterIP: "10.0.0.1"},
	} {
		if _, ok := ServiceOf(&corev1.Service{Spec: spec}); ok {
			t.Errorf("%s: it is told of", what)
		}
	}
}
