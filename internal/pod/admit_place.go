package pod

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// Reasons of pods that a node refuses, in kubelet's words (pkg/kubelet/lifecycle,
// eviction, nodeshutdown and the scheduler's plugins).
const (
	ReasonEvicted         = "Evicted"
	ReasonNodeShutdown    = "NodeShutdown"
	ReasonOSLabel         = "PodOSSelectorNodeLabelDoesNotMatch"
	ReasonOSNotSupported  = "PodOSNotSupported"
	ReasonNodeAffinity    = "NodeAffinity"
	ReasonNodeName        = "NodeName"
	ReasonNodePorts       = "NodePorts"
	ReasonTaintToleration = "TaintToleration"
	reasonOutOf           = "OutOf" // and the resource
	messagePredicate      = "Predicate %s failed: %s"
	messageInsufficient   = "Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d"
)

// admitPressure refuses pods while the node evicts: all but critical ones, and under
// pressure of memory alone only best-effort ones that do not tolerate it.
func (a Admission) admitPressure(p *corev1.Pod) *Rejection {
	if len(a.Pressure) == 0 || Critical(p) {
		return nil
	}
	if len(a.Pressure) == 1 && a.Pressure[0] == corev1.NodeMemoryPressure {
		taint := corev1.Taint{Key: corev1.TaintNodeMemoryPressure, Effect: corev1.TaintEffectNoSchedule}
		if QOSClass(p) != corev1.PodQOSBestEffort || tolerates(p, &taint) {
			return nil
		}
	}
	return &Rejection{Reason: ReasonEvicted, Message: fmt.Sprintf("The node had condition: %v. ", a.Pressure)}
}

// admitPlace asks what the scheduler asked, once more: it may have been bypassed, or
// have seen another node than there is. labels tells that nothing but the node's
// labels refuses the pod.
func (a Admission) admitPlace(p *corev1.Pod, others []*corev1.Pod) (r *Rejection, labels bool) {
	if a.Node == nil {
		return nil, false
	}
	if label, ok := p.Labels[corev1.LabelOSStable]; ok && label != a.OS {
		return &Rejection{Reason: ReasonOSLabel, Message: "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"}, false
	}
	if p.Spec.OS != nil && string(p.Spec.OS.Name) != a.OS {
		return &Rejection{Reason: ReasonOSNotSupported, Message: "Failed to admit pod as the OS field doesn't match node OS"}, false
	}
	if r := lacking(p, others, a.Node.Status.Allocatable); r != nil {
		return r, false
	}
	unfit := !a.fitsLabels(p)
	switch {
	case p.Spec.NodeName != "" && p.Spec.NodeName != a.Node.Name:
		r = predicate(ReasonNodeName, "node(s) didn't match the requested node name")
	case portTaken(p, others):
		r = predicate(ReasonNodePorts, "node(s) didn't have free ports for the requested pod ports")
	case !static(p) && repelled(p, a.Node.Spec.Taints):
		r = predicate(ReasonTaintToleration, "node(s) had taints that the pod didn't tolerate")
	}
	if unfit { // it comes before the three, but alone it may heal
		return predicate(ReasonNodeAffinity, "node(s) didn't match Pod's node affinity/selector"), r == nil
	}
	return r, false
}

func predicate(name, why string) *Rejection {
	return &Rejection{Reason: name, Message: fmt.Sprintf(messagePredicate, name, why)}
}

// fitsLabels holds the node selector and the required node affinity against the
// node; whatever its object says of the operating system, it is this one.
func (a Admission) fitsLabels(p *corev1.Pod) bool {
	node := a.Node
	if node.Labels[corev1.LabelOSStable] != a.OS {
		shallow := *node
		shallow.Labels = maps.Clone(node.Labels)
		if shallow.Labels == nil {
			shallow.Labels = map[string]string{}
		}
		shallow.Labels[corev1.LabelOSStable] = a.OS
		node = &shallow
	}
	fits, err := nodeaffinity.GetRequiredNodeAffinity(p).Match(node)
	return fits && err == nil
}

// repelled tells whether the node has a NoExecute taint that the pod does not
// tolerate. NoSchedule is for the scheduler: kubelet does not ask for it either.
func repelled(p *corev1.Pod, taints []corev1.Taint) bool {
	return slices.ContainsFunc(taints, func(t corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoExecute && !tolerates(p, &t)
	})
}

// tolerates is ToleratesTaint of k8s.io/api without Lt and Gt, which are alpha and
// off in Kubernetes 1.36, and without a logger.
func tolerates(p *corev1.Pod, taint *corev1.Taint) bool {
	return slices.ContainsFunc(p.Spec.Tolerations, func(t corev1.Toleration) bool {
		switch {
		case t.Effect != "" && t.Effect != taint.Effect, t.Key != "" && t.Key != taint.Key:
			return false
		case t.Operator == "" || t.Operator == corev1.TolerationOpEqual:
			return t.Value == taint.Value
		}
		return t.Operator == corev1.TolerationOpExists
	})
}

// portTaken tells whether a port of the host that the pod wants is another's. Init
// containers count only if they go on beside the others.
func portTaken(p *corev1.Pod, others []*corev1.Pod) bool {
	want := hostPorts(p)
	if len(want) == 0 {
		return false
	}
	for _, o := range others {
		for _, have := range hostPorts(o) {
			if slices.ContainsFunc(want, have.clashes) {
				return true
			}
		}
	}
	return false
}

// hostPort is a port of the host as containers ask for it.
type hostPort struct {
	ip       string
	protocol corev1.Protocol
	port     int32
}

func (h hostPort) clashes(o hostPort) bool {
	return h.port == o.port && h.protocol == o.protocol && (h.ip == o.ip || h.ip == anyAddress || o.ip == anyAddress)
}

const anyAddress = "0.0.0.0"

func hostPorts(p *corev1.Pod) []hostPort {
	var all []hostPort
	add := func(c *corev1.Container) {
		for _, port := range c.Ports {
			if port.HostPort <= 0 {
				continue
			}
			h := hostPort{port.HostIP, port.Protocol, port.HostPort}
			if h.ip == "" {
				h.ip = anyAddress
			}
			if h.protocol == "" {
				h.protocol = corev1.ProtocolTCP
			}
			all = append(all, h)
		}
	}
	for i := range p.Spec.InitContainers {
		if isSidecar(&p.Spec.InitContainers[i]) {
			add(&p.Spec.InitContainers[i])
		}
	}
	for i := range p.Spec.Containers {
		add(&p.Spec.Containers[i])
	}
	return all
}

// lacking tells which resource the node has too little of for the pod, in the
// scheduler's order. An extended resource that the node does not know is a
// cluster's, and not the node's to judge. Critical pods are not refused for what
// kubelet would take from others for them.
func lacking(p *corev1.Pod, others []*corev1.Pod, have corev1.ResourceList) *Rejection {
	critical := Critical(p)
	if pods := int64(len(others)); pods+1 > have.Pods().Value() && !critical {
		return insufficient(corev1.ResourcePods, 1, pods, have.Pods().Value())
	}
	want := resource.PodRequests(p, resource.PodResourcesOptions{})
	if len(want) == 0 {
		return nil
	}
	used := map[corev1.ResourceName]int64{}
	for _, o := range others {
		for name, q := range resource.PodRequests(o, resource.PodResourcesOptions{}) {
			used[name] += amount(name, q)
		}
	}
	for _, name := range inOrder(want) {
		capacity, known := have[name]
		asked := amount(name, want[name])
		if asked <= 0 || extended(name) && !known || critical && !extended(name) {
			continue
		}
		if total := amount(name, capacity); asked > total-used[name] {
			return insufficient(name, asked, used[name], total)
		}
	}
	return nil
}

// amount counts as the scheduler does: processor time in thousandths.
func amount(name corev1.ResourceName, q quantity.Quantity) int64 {
	if name == corev1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

func insufficient(name corev1.ResourceName, requested, used, capacity int64) *Rejection {
	return &Rejection{Reason: reasonOutOf + string(name), Message: fmt.Sprintf(messageInsufficient, name, requested, used, capacity)}
}

// inOrder sorts what a pod asks for: processor, memory, storage, then by name.
func inOrder(want corev1.ResourceList) []corev1.ResourceName {
	first := []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}
	var rest []corev1.ResourceName
	for name := range want {
		if !slices.Contains(first, name) {
			rest = append(rest, name)
		}
	}
	slices.Sort(rest)
	return append(first, rest...)
}

// extended tells whether a resource is none of Kubernetes' own.
func extended(name corev1.ResourceName) bool {
	return strings.Contains(string(name), "/") && !strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix) &&
		!strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix)
}
