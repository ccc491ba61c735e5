package pod

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var place = Place{
	HostIPs: []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")},
	PodIPs:  []netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00::2")},
	Allocatable: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("4Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("10G"),
	},
}

// TestField: each field that validation lets through has its value, and the form
// of whole maps is the API's.
func TestField(t *testing.T) {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web", Namespace: "ns", UID: "u-1",
			Labels:      map[string]string{"b": "2", "a": "1", "k8s.io/app": "x\"y\n"},
			Annotations: map[string]string{"a['b']": "odd"},
		},
		Spec: corev1.PodSpec{NodeName: "node", ServiceAccountName: "sa"},
	}
	for path, want := range map[string]string{
		"metadata.name": "web", "metadata.namespace": "ns", "metadata.uid": "u-1",
		"metadata.labels":                "a=\"1\"\nb=\"2\"\nk8s.io/app=\"x\\\"y\\n\"",
		"metadata.labels['k8s.io/app']":  "x\"y\n",
		"metadata.labels['none']":        "",
		"metadata.annotations['a['b']']": "odd",
		"spec.nodeName":                  "node",
		"spec.host":                      "node",
		"spec.serviceAccountName":        "sa",
		"status.hostIP":                  "192.0.2.10",
		"status.hostIPs":                 "192.0.2.10,2001:db8::10",
		"status.podIP":                   "10.1.0.2",
		"status.podIPs":                  "10.1.0.2,fd00::2",
		"spec.nodeName['x']":             "!",
		"status.phase":                   "!",
		"":                               "!",
	} {
		got, err := place.Field(p, path)
		if (err != nil) != (want == "!") || err == nil && got != want {
			t.Errorf("%s is %q, %v; want %q", path, got, err, want)
		}
	}
	if got, err := (Place{}).Field(p, "status.podIP"); got != "" || err != nil {
		t.Errorf("a pod without an address has %q, %v", got, err)
	}
}

func TestResource(t *testing.T) {
	list := func(cpu, memory string) corev1.ResourceList {
		l := corev1.ResourceList{}
		for name, v := range map[corev1.ResourceName]string{"cpu": cpu, "memory": memory} {
			if v != "" {
				l[name] = resource.MustParse(v)
			}
		}
		return l
	}
	p := &corev1.Pod{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: "init", Resources: corev1.ResourceRequirements{Requests: list("10m", "")}}},
		Containers: []corev1.Container{
			{Name: "full", Resources: corev1.ResourceRequirements{
				Limits:   corev1.ResourceList{"cpu": resource.MustParse("1500m"), "memory": resource.MustParse("100Mi"), "hugepages-2Mi": resource.MustParse("4Mi")},
				Requests: list("250m", "64Mi"),
			}},
			{Name: "bare"},
		},
	}}
	full, bare := &p.Spec.Containers[0], &p.Spec.Containers[1]
	for _, c := range []struct {
		of             *corev1.Container
		named          string
		field, divisor string
		want           string
	}{
		{full, "", "limits.cpu", "", "2"}, // rounded up
		{full, "", "limits.cpu", "1m", "1500"},
		{full, "", "requests.cpu", "", "1"},
		{full, "", "limits.memory", "", "104857600"},
		{full, "", "limits.memory", "1Mi", "100"},
		{full, "", "limits.memory", "1M", "105"},
		{full, "", "requests.memory", "1Gi", "1"},
		{full, "", "limits.hugepages-2Mi", "1Mi", "4"},
		{full, "", "limits.hugepages-1Gi", "", "0"},
		{full, "", "limits.ephemeral-storage", "1G", "10"},
		{full, "", "requests.ephemeral-storage", "", "0"},
		{bare, "", "limits.cpu", "", "2"},
		{bare, "", "limits.memory", "1Gi", "4"},
		{bare, "", "requests.memory", "", "0"},
		{bare, "full", "limits.cpu", "1m", "1500"},
		{nil, "bare", "limits.cpu", "", "2"},
		{nil, "init", "limits.cpu", "", "0"},
		{nil, "init", "requests.cpu", "1m", "10"},
		{nil, "none", "limits.cpu", "", "!"},
		{nil, "", "limits.cpu", "", "!"},
		{full, "", "limits.pods", "", "!"},
		{full, "", "cpu", "", "!"},
	} {
		ref := &corev1.ResourceFieldSelector{ContainerName: c.named, Resource: c.field}
		if c.divisor != "" {
			ref.Divisor = resource.MustParse(c.divisor)
		}
		got, err := place.Resource(p, c.of, ref)
		if (err != nil) != (c.want == "!") || err == nil && got != c.want {
			t.Errorf("%s of %q by %q is %q, %v; want %q", c.field, c.named, c.divisor, got, err, c.want)
		}
	}
	p.Spec.Resources = &corev1.ResourceRequirements{Limits: list("1", "1Gi")}
	if got, _ := place.Resource(p, bare, &corev1.ResourceFieldSelector{Resource: "limits.memory"}); got != "1073741824" {
		t.Errorf("of the pod's own limit a container without one sees %s", got)
	}
}
