package pod

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Hook is one run of a lifecycle hook: what to do, and to whom.
type Hook struct {
	Container string     // id
	Addr      netip.Addr // of the pod, for a hook that names no host; zero: it has none
	Handler   *corev1.LifecycleHandler
}

// maxHook keeps an encoded hook well within containerd's limit of 4096 bytes for a
// label.
const maxHook = 3500

// EncodeHook writes the container's preStop hook as its record keeps it; "" when there
// is none, or it is too long: then it does not outlive its manifest.
func EncodeHook(c *corev1.Container) string {
	if c.Lifecycle == nil || c.Lifecycle.PreStop == nil {
		return ""
	}
	h, err := withPort(c, c.Lifecycle.PreStop)
	if err != nil {
		return ""
	}
	b, err := json.Marshal(h)
	if err != nil || len(b) > maxHook {
		return ""
	}
	return string(b)
}

// PostStartOf returns the container's postStart hook with its port as a number.
func PostStartOf(c *corev1.Container) (*corev1.LifecycleHandler, error) {
	if c == nil || c.Lifecycle == nil || c.Lifecycle.PostStart == nil {
		return nil, nil
	}
	return withPort(c, c.Lifecycle.PostStart)
}

// PreStopOf returns the preStop hook of a run with its port as a number: its
// container's in the spec, or where that is gone, the one on its record.
func PreStopOf(p *corev1.Pod, run *Container) (*corev1.LifecycleHandler, error) {
	if p != nil {
		c := ContainerOf(p, run.Name)
		if c == nil || c.Lifecycle == nil || c.Lifecycle.PreStop == nil {
			return nil, nil
		}
		return withPort(c, c.Lifecycle.PreStop)
	}
	if run.PreStop == "" {
		return nil, nil
	}
	h := &corev1.LifecycleHandler{}
	if err := json.Unmarshal([]byte(run.PreStop), h); err != nil {
		return nil, fmt.Errorf("read the preStop hook on the record of container %q: %w", run.Name, err)
	}
	return h, nil
}

// withPort makes a named port of the hook a number, as kubelet's ResolveContainerPort.
func withPort(c *corev1.Container, h *corev1.LifecycleHandler) (*corev1.LifecycleHandler, error) {
	if h.HTTPGet == nil || h.HTTPGet.Port.Type == intstr.Int {
		return h, nil
	}
	name := h.HTTPGet.Port.StrVal
	port, err := strconv.Atoi(name)
	for _, p := range c.Ports {
		if p.Name == name {
			port, err = int(p.ContainerPort), nil
		}
	}
	if err != nil || port < 1 || port > 65535 {
		return nil, fmt.Errorf("find the port of a hook of container %q: it has no port named %q", c.Name, name)
	}
	h = h.DeepCopy()
	h.HTTPGet.Port = intstr.FromInt(port)
	return h, nil
}

// EncodeInit writes what an init container is, as its record keeps it: "true", or its
// place from 1 when it is a sidecar; "" when it is none.
func EncodeInit(p *corev1.Pod, name string) string {
	for i := range p.Spec.InitContainers {
		switch c := &p.Spec.InitContainers[i]; {
		case c.Name != name:
		case isSidecar(c):
			return strconv.Itoa(i + 1)
		default:
			return "true"
		}
	}
	return ""
}

// InitPlace reads what EncodeInit wrote.
func InitPlace(label string) (init bool, sidecar int) {
	if label == "" || label == "false" {
		return false, 0
	}
	sidecar, _ = strconv.Atoi(label)
	return true, max(sidecar, 0)
}
