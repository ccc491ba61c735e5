package pod

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Place is where a pod is: what the downward API tells of it that its
// specification does not hold.
type Place struct {
	// HostIPs are the node's addresses, PodIPs the pod's own, or the node's on
	// the host network; the first of each is the preferred one.
	HostIPs, PodIPs []netip.Addr
	// Allocatable is what the node has for pods: the limit of a container that
	// has none.
	Allocatable corev1.ResourceList
}

// Field returns the field of the pod that a fieldRef names, as text. Which
// fields a variable or a volume may show is for validation to say; an unknown
// one is an error.
//
// Source: KEP-136 and kubelet's fieldpath package; labels and annotations as a
// whole are lines of key="value", sorted, quoted as Go quotes.
func (at Place) Field(p *corev1.Pod, path string) (string, error) {
	if base, key, ok := splitSubscript(path); ok {
		switch base {
		case "metadata.annotations":
			return p.Annotations[key], nil
		case "metadata.labels":
			return p.Labels[key], nil
		}
		return "", fmt.Errorf("fieldPath %q does not support subscript", path)
	}
	switch path {
	case "metadata.name":
		return p.Name, nil
	case "metadata.namespace":
		return p.Namespace, nil
	case "metadata.uid":
		return string(p.UID), nil
	case "metadata.labels":
		return lines(p.Labels), nil
	case "metadata.annotations":
		return lines(p.Annotations), nil
	case "spec.nodeName", "spec.host": // the older name of v1's first clients
		return p.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return p.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(at.HostIPs), nil
	case "status.hostIPs":
		return joined(at.HostIPs), nil
	case "status.podIP":
		return first(at.PodIPs), nil
	case "status.podIPs":
		return joined(at.PodIPs), nil
	}
	return "", fmt.Errorf("unsupported fieldPath: %v", path)
}

// splitSubscript splits "metadata.labels['app']" at its subscript.
func splitSubscript(path string) (base, key string, ok bool) {
	inner, closed := strings.CutSuffix(path, "']")
	base, key, ok = strings.Cut(inner, "['")
	if !closed || !ok || base == "" {
		return path, "", false
	}
	return base, key, true
}

func lines(m map[string]string) string {
	all := make([]string, 0, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		all = append(all, key+"="+strconv.Quote(m[key]))
	}
	return strings.Join(all, "\n")
}

func first(addrs []netip.Addr) string {
	if len(addrs) == 0 {
		return ""
	}
	return addrs[0].String()
}

func joined(addrs []netip.Addr) string {
	all := make([]string, len(addrs))
	for i, a := range addrs {
		all[i] = a.String()
	}
	return strings.Join(all, ",")
}

// Resource returns the request or limit that a resourceFieldRef names, in whole
// divisors, rounded up. c is the container whose variable it is; nil in a volume,
// where the reference names its container. A limit of CPU, memory or ephemeral
// storage that a container does not have is the pod's own, or else what the node
// has for pods.
//
// Source: kubelet's defaultPodLimitsForDownwardAPI and
// k8s.io/kubernetes/pkg/api/v1/resource. A container that is named from another
// one gets a limit in place of a missing one only if it is no init container.
func (at Place) Resource(p *corev1.Pod, c *corev1.Container, ref *corev1.ResourceFieldSelector) (string, error) {
	assume := true
	if ref.ContainerName != "" {
		if c, assume = containerOf(p, ref.ContainerName); c == nil {
			return "", fmt.Errorf("container %s not found", ref.ContainerName)
		}
	}
	if c == nil {
		return "", fmt.Errorf("resource %s is of no container", ref.Resource)
	}
	which, name, _ := strings.Cut(ref.Resource, ".")
	list := c.Resources.Requests
	if which == "limits" {
		list = c.Resources.Limits
	}
	key := corev1.ResourceName(name)
	hugePages := strings.HasPrefix(name, corev1.ResourceHugePagesPrefix)
	ordinary := key == corev1.ResourceCPU || key == corev1.ResourceMemory || key == corev1.ResourceEphemeralStorage
	if which != "limits" && which != "requests" || !ordinary && !hugePages {
		return "", fmt.Errorf("unsupported container resource : %v", ref.Resource)
	}
	q := list[key]
	if q.IsZero() && which == "limits" && ordinary && assume {
		q = at.limit(p, key)
	}
	return inDivisors(q, ref.Divisor, key == corev1.ResourceCPU), nil
}

// limit is what a container without a limit of its own can use.
func (at Place) limit(p *corev1.Pod, key corev1.ResourceName) resource.Quantity {
	if p.Spec.Resources != nil && key != corev1.ResourceEphemeralStorage {
		if q := p.Spec.Resources.Limits[key]; !q.IsZero() {
			return q
		}
	}
	return at.Allocatable[key]
}

// inDivisors is q in units of divisor, 1 where that is zero, rounded up. CPU is
// counted in thousandths.
func inDivisors(q, divisor resource.Quantity, milli bool) string {
	if divisor.IsZero() {
		divisor = *resource.NewQuantity(1, resource.DecimalSI)
	}
	n, d := q.Value(), divisor.Value()
	if milli {
		n, d = q.MilliValue(), divisor.MilliValue()
	}
	whole := n / d
	if n%d > 0 {
		whole++
	}
	return strconv.FormatInt(whole, 10)
}

// containerOf finds a container by its name; proper tells that it is no init
// container.
func containerOf(p *corev1.Pod, name string) (c *corev1.Container, proper bool) {
	for i := range p.Spec.Containers {
		if p.Spec.Containers[i].Name == name {
			return &p.Spec.Containers[i], true
		}
	}
	for i := range p.Spec.InitContainers {
		if p.Spec.InitContainers[i].Name == name {
			return &p.Spec.InitContainers[i], false
		}
	}
	return nil, false
}
