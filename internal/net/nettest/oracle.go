package nettest

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Cluster is what an oracle knows.
type Cluster struct {
	Services  []*corev1.Service
	Slices    []*discoveryv1.EndpointSlice
	NodeName  string
	Zone      string
	NodeAddrs []netip.Addr
	Pods      []netip.Prefix
	Ranges    []netip.Prefix // of which cluster IPs are drawn; nil: that is not asked
}

// Fate is what becomes of a new connection.
type Fate struct {
	// What is "refused", "dropped", "served", or "" if the address is none of a
	// service.
	What string
	// To are the endpoints that may answer.
	To []netip.AddrPort
	// Masked tells whether the endpoint may not see the caller's address. An
	// endpoint that calls itself never does.
	Masked bool
}

// Ask says what becomes of a connection from an address to one of a service.
// The cluster must be free of conflicts and of bad addresses.
func (c Cluster) Ask(from netip.Addr, proto corev1.Protocol, to netip.AddrPort) Fate {
	for _, s := range c.Services {
		for _, p := range s.Spec.Ports {
			if p.Protocol == proto {
				if f := c.askPort(s, p, from, to); f.What != "" {
					return f
				}
			}
		}
	}
	if slices.ContainsFunc(c.Services, func(s *corev1.Service) bool { return slices.Contains(s.Spec.ClusterIPs, to.Addr().String()) }) {
		return Fate{What: "refused"}
	}
	if slices.ContainsFunc(c.Ranges, func(p netip.Prefix) bool {
		return p.Contains(to.Addr()) && !slices.ContainsFunc(c.NodeAddrs, p.Contains)
	}) {
		return Fate{What: "refused"}
	}
	return Fate{}
}

func (c Cluster) askPort(s *corev1.Service, p corev1.ServicePort, from netip.Addr, to netip.AddrPort) Fate {
	is4 := to.Addr().Is4()
	if !slices.ContainsFunc(s.Spec.ClusterIPs, func(x string) bool { return !strings.Contains(x, ":") == is4 }) {
		return Fate{}
	}
	pod := slices.ContainsFunc(c.Pods, func(x netip.Prefix) bool { return x.Contains(from) })
	own := slices.Contains(c.NodeAddrs, from)
	asClusterIP := slices.Contains(s.Spec.ClusterIPs, to.Addr().String()) && int32(to.Port()) == p.Port
	if asClusterIP {
		onlyHere := s.Spec.InternalTrafficPolicy != nil && *s.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
		f := c.lead(s, p, is4, onlyHere)
		f.Masked = f.What == "served" && !pod && len(c.Pods) > 0
		return f
	}
	balancer := slices.ContainsFunc(s.Status.LoadBalancer.Ingress, func(i corev1.LoadBalancerIngress) bool { return i.IP == to.Addr().String() })
	asNodePort := p.NodePort != 0 && int32(to.Port()) == p.NodePort && slices.Contains(c.NodeAddrs, to.Addr())
	outer := int32(to.Port()) == p.Port && (balancer || slices.Contains(s.Spec.ExternalIPs, to.Addr().String()))
	if !asNodePort && !outer {
		return Fate{}
	}
	if outer && balancer && !c.letIn(s, from, to.Addr()) {
		return Fate{What: "dropped"}
	}
	if s.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		f := c.lead(s, p, is4, false)
		f.Masked = f.What == "served"
		return f
	}
	f := c.lead(s, p, is4, !pod && !own)
	f.Masked = f.What == "served" && own
	return f
}

func (c Cluster) letIn(s *corev1.Service, from, to netip.Addr) bool {
	some, node := false, false
	for _, r := range s.Spec.LoadBalancerSourceRanges {
		p := netip.MustParsePrefix(r)
		if p.Addr().Is4() != to.Is4() {
			continue
		}
		some = true
		node = node || slices.ContainsFunc(c.NodeAddrs, p.Contains)
		if p.Contains(from) {
			return true
		}
	}
	return !some || (node && from == to)
}

// lead picks endpoints: the ready ones, else those that drain; on this node
// alone if onlyHere, else by hints.
func (c Cluster) lead(s *corev1.Service, p corev1.ServicePort, is4, onlyHere bool) Fate {
	ready, draining := c.endpoints(s, p, is4, true), c.endpoints(s, p, is4, false)
	if len(ready)+len(draining) == 0 {
		return Fate{What: "refused"}
	}
	if onlyHere {
		here := func(e end) bool { return e.NodeName == nil || *e.NodeName != c.NodeName }
		ready, draining = slices.DeleteFunc(ready, here), slices.DeleteFunc(draining, here)
		if len(ready)+len(draining) == 0 {
			return Fate{What: "dropped"}
		}
	} else {
		ready = c.near(ready)
	}
	if len(ready) == 0 {
		ready = draining
	}
	f := Fate{What: "served"}
	for _, e := range ready {
		f.To = append(f.To, e.at)
	}
	return f
}

type end struct {
	discoveryv1.Endpoint
	at netip.AddrPort
}

func (c Cluster) endpoints(s *corev1.Service, p corev1.ServicePort, is4, ready bool) []end {
	var out []end
	for _, sl := range c.Slices {
		if sl.Namespace != s.Namespace || sl.Labels[discoveryv1.LabelServiceName] != s.Name {
			continue
		}
		for _, sp := range sl.Ports {
			if *sp.Name != p.Name || *sp.Protocol != p.Protocol {
				continue
			}
			for _, e := range sl.Endpoints {
				a := netip.MustParseAddr(e.Addresses[0])
				is := *e.Conditions.Ready
				if !ready {
					is = !is && *e.Conditions.Serving && *e.Conditions.Terminating
				}
				if is && a.Is4() == is4 {
					out = append(out, end{e, netip.AddrPortFrom(a, uint16(*sp.Port))})
				}
			}
		}
	}
	return out
}

// near keeps the endpoints that hints mean for here.
func (c Cluster) near(in []end) []end {
	byNode := func(e end) (has, us bool) {
		if e.Hints == nil {
			return
		}
		for _, n := range e.Hints.ForNodes {
			has, us = true, us || n.Name == c.NodeName
		}
		return
	}
	byZone := func(e end) (has, us bool) {
		if e.Hints == nil {
			return
		}
		for _, z := range e.Hints.ForZones {
			has, us = true, us || (z.Name == c.Zone && c.Zone != "")
		}
		return
	}
	for _, hint := range []func(end) (bool, bool){byNode, byZone} {
		var us []end
		all := true
		for _, e := range in {
			has, is := hint(e)
			all = all && has
			if is {
				us = append(us, e)
			}
		}
		if all && len(us) > 0 {
			return us
		}
	}
	return in
}
