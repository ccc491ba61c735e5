package proxy

import (
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"nodeagent/internal/net"
)

// kind is a kind of object that is followed.
type kind int

const (
	services kind = iota
	endpointSlices
	nodes
	serviceCIDRs // only where the Backend needs them
	kinds        // how many there are
)

func (k kind) String() string {
	return [...]string{"Services", "EndpointSlices", "the Node", "ServiceCIDRs"}[k]
}

// news is one thing that the API server said. The object belongs to who takes it.
type news struct {
	kind   kind
	object any  // *corev1.Service, *discoveryv1.EndpointSlice, *corev1.Node or *networkingv1.ServiceCIDR
	gone   bool // it was deleted
	none   bool // there are none to be had: it is gone on without
	// all is not nil when all that there is was told: nothing else exists.
	all map[net.Key]bool
}

// take brings the model up to what the API server said.
func (p *Proxy) take(n news) {
	now := time.Now()
	if n.all != nil {
		p.complete(n.kind, n.all)
	}
	if n.none {
		p.listed[n.kind] = true
	}
	switch o := n.object.(type) {
	case *corev1.Service:
		k := net.Key{Namespace: o.Namespace, Name: o.Name}
		p.state.changed(services)
		if n.gone {
			delete(p.uids, k)
			p.model.DeleteService(k)
		} else {
			p.uids[k] = o.UID
			p.model.SetService(o)
		}
	case *discoveryv1.EndpointSlice:
		p.state.changed(endpointSlices)
		if n.gone {
			p.model.DeleteSlice(net.Key{Namespace: o.Namespace, Name: o.Name})
		} else {
			p.model.SetSlice(o)
			p.triggered(o, now)
		}
	case *corev1.Node:
		p.takeNode(o, n.gone)
	case *networkingv1.ServiceCIDR:
		if n.gone {
			p.model.DeleteServiceCIDR(o.Name)
		} else {
			p.model.SetServiceCIDR(o)
		}
	}
	if p.model.Dirty() {
		p.batch.add(now)
		if p.known() {
			p.state.queued(now)
		}
	}
}

// known tells whether all lists were complete once without which there are no rules.
func (p *Proxy) known() bool {
	return p.listed[services] && p.listed[endpointSlices] && p.listed[nodes]
}

// complete forgets what a complete list does not have.
func (p *Proxy) complete(k kind, all map[net.Key]bool) {
	listed := func(k net.Key) bool { return all[k] }
	switch k {
	case services:
		p.model.KeepServices(listed)
		for k := range p.uids {
			if !all[k] {
				delete(p.uids, k)
			}
		}
	case endpointSlices:
		p.model.KeepSlices(listed)
	case nodes:
		if len(all) == 0 {
			p.takeNode(&corev1.Node{}, true)
		}
	case serviceCIDRs:
		p.model.KeepServiceCIDRs(listed)
	}
	if !p.listed[k] {
		p.listed[k] = true
		p.patient = time.Now().Add(patience)
	}
}

// triggerAnnotation says when what led to an EndpointSlice's change happened.
const triggerAnnotation = corev1.EndpointsLastChangeTriggerTime

// maxTriggers bounds how many of these times wait for the rules.
const maxTriggers = 4096

// triggered notes when the cause of a change was. What happened before the first
// rules were written measures a start and not a change.
func (p *Proxy) triggered(s *discoveryv1.EndpointSlice, now time.Time) {
	text, ok := s.Annotations[triggerAnnotation]
	if !ok || !p.begun || len(p.trigger) >= maxTriggers {
		return
	}
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil && at.Before(now) && at.After(p.whole) {
		p.trigger = append(p.trigger, at)
	}
}

// nodeFacts are what matters of the Node.
type nodeFacts struct {
	net   net.Node
	facts Facts
}

// deletedSoon is the taint by which the cluster's autoscaler announces a node's end.
const deletedSoon = "ToBeDeletedByClusterAutoscaler"

// takeNode takes facts of the Node. One that was deleted keeps those it had: its
// address does not go with the object.
func (p *Proxy) takeNode(n *corev1.Node, gone bool) {
	p.state.eligible(!gone && n.DeletionTimestamp.IsZero() &&
		!slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == deletedSoon }))
	if gone {
		return
	}
	p.node = nodeFacts{net: net.Node{Name: p.cfg.NodeName, Zone: n.Labels[corev1.LabelTopologyZone]}}
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP} {
		for _, a := range n.Status.Addresses {
			ip, err := netip.ParseAddr(a.Address)
			if a.Type != kind || err != nil || slices.Contains(p.node.net.Addrs, ip.Unmap()) {
				continue
			}
			ip = ip.Unmap()
			p.node.net.Addrs = append(p.node.net.Addrs, ip)
			if f := &p.node.facts; !slices.ContainsFunc(f.Addrs, func(o netip.Addr) bool { return o.Is4() == ip.Is4() }) {
				f.Addrs = append(f.Addrs, ip)
			}
		}
	}
	cidrs := n.Spec.PodCIDRs
	if len(cidrs) == 0 && n.Spec.PodCIDR != "" {
		cidrs = []string{n.Spec.PodCIDR}
	}
	for _, c := range cidrs {
		if prefix, err := netip.ParsePrefix(c); err == nil {
			p.node.facts.PodCIDRs = append(p.node.facts.PodCIDRs, prefix.Masked())
		}
	}
	p.model.SetNode(p.node.net)
}
