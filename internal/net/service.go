package net

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	defaultAffinity = 10800
	maxAffinity     = 86400
)

// service is what the model keeps of a Service.
type service struct {
	key         Key
	born        int64 // unix seconds: of two claims to an address the older wins
	ports       []servicePort
	clusterIPs  []netip.Addr // at most one a family
	external    []netip.Addr // spec.externalIPs
	balancers   []netip.Addr // status.loadBalancer.ingress of mode VIP
	ranges      []netip.Prefix
	ranged      bool   // source ranges are asked for
	badRanges   bool   // and some of them cannot be read
	affinity    uint32 // seconds; 0 is none
	healthPort  uint16
	localOnly   bool // externalTrafficPolicy Local
	localInside bool // internalTrafficPolicy Local
	bad         []Finding
}

type servicePort struct {
	name     string
	proto    Proto
	port     uint16
	nodePort uint16
}

// ignored tells why a proxy has nothing to do with a Service, or "": headless ones,
// those without an address yet, ExternalName, and those of another proxy.
func ignored(s *corev1.Service) string {
	_, other := s.Labels["service.kubernetes.io/service-proxy-name"]
	switch {
	case other:
		return "its label service.kubernetes.io/service-proxy-name says that another proxy serves it"
	case s.Spec.Type == corev1.ServiceTypeExternalName:
		return "it is of type ExternalName: a name in DNS, and no address"
	case s.Spec.ClusterIP == corev1.ClusterIPNone:
		return "it is headless: clients find the endpoints' own addresses in DNS"
	case s.Spec.ClusterIP == "" && len(s.Spec.ClusterIPs) == 0:
		return "it has no cluster IP yet: the API server gives it one"
	}
	return ""
}

// newService reads what matters of a Service, or returns nil.
func newService(in *corev1.Service) *service {
	if ignored(in) != "" {
		return nil
	}
	s := &service{key: Key{in.Namespace, in.Name}, born: in.CreationTimestamp.Unix()}
	s.readClusterIPs(in)
	s.readPorts(in)
	s.external = s.readIPs("externalIP", in.Spec.ExternalIPs)
	var vips []string
	for _, i := range in.Status.LoadBalancer.Ingress {
		if i.IP != "" && (i.IPMode == nil || *i.IPMode == corev1.LoadBalancerIPModeVIP) {
			vips = append(vips, i.IP)
		}
	}
	s.balancers = s.readIPs("load balancer address", vips)
	s.readRanges(in.Spec.LoadBalancerSourceRanges)
	s.readAffinity(in)
	outside := in.Spec.Type == corev1.ServiceTypeLoadBalancer || in.Spec.Type == corev1.ServiceTypeNodePort || len(in.Spec.ExternalIPs) > 0
	s.localOnly = outside && in.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	s.localInside = in.Spec.InternalTrafficPolicy != nil && *in.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
	if in.Spec.Type == corev1.ServiceTypeLoadBalancer && s.localOnly {
		s.readHealthPort(in.Spec.HealthCheckNodePort)
	}
	return s
}

func (s *service) complain(r Reason, format string, args ...any) {
	s.bad = append(s.bad, Finding{r, fmt.Sprintf(format, args...)})
}

func (s *service) readClusterIPs(in *corev1.Service) {
	all := in.Spec.ClusterIPs
	if len(all) == 0 {
		all = []string{in.Spec.ClusterIP}
	}
	for _, x := range all {
		a, ok := parseIP(x)
		if why := special(a); why != "" {
			s.complain(ReasonAddress, "clusterIP %q %s; it is left out", x, why)
			continue
		}
		if !ok || slices.ContainsFunc(s.clusterIPs, func(o netip.Addr) bool { return familyOf(o) == familyOf(a) }) {
			s.complain(ReasonAddress, "clusterIP %q is a second one of its family; it is left out", x)
			continue
		}
		s.clusterIPs = append(s.clusterIPs, a)
	}
}

func (s *service) readPorts(in *corev1.Service) {
	for i := range in.Spec.Ports {
		p := &in.Spec.Ports[i]
		proto, ok := protoOf(p.Protocol)
		switch {
		case !ok:
			s.complain(ReasonPort, "port %q has the protocol %q, which is not known; it is left out", p.Name, p.Protocol)
			continue
		case slices.ContainsFunc(s.ports, func(o servicePort) bool { return o.name == p.Name && o.proto == proto }):
			s.complain(ReasonPort, "port %q is there twice; the second is left out", p.Name)
			continue
		case p.Port < 1 || p.Port > 65535:
			s.complain(ReasonPort, "port %q is %d; it is left out, a port is 1 to 65535", p.Name, p.Port)
			continue
		}
		sp := servicePort{name: p.Name, proto: proto, port: uint16(p.Port)}
		if p.NodePort < 0 || p.NodePort > 65535 {
			s.complain(ReasonPort, "nodePort of port %q is %d; it is left out, a port is 1 to 65535", p.Name, p.NodePort)
		} else {
			sp.nodePort = uint16(p.NodePort)
		}
		s.ports = append(s.ports, sp)
	}
}

// readIPs takes addresses that somebody outside gave the service.
func (s *service) readIPs(what string, in []string) []netip.Addr {
	var out []netip.Addr
	for _, x := range in {
		a, _ := parseIP(x)
		if why := special(a); why != "" {
			s.complain(ReasonAddress, "%s %q %s; it is left out", what, x, why)
		} else if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

func (s *service) readRanges(in []string) {
	for _, x := range in {
		x = strings.TrimSpace(x) // which the API server lets pass
		p, err := parseRange(x)
		s.ranged = true
		if err != nil {
			s.badRanges = true
			s.complain(ReasonSourceRange, "source range %q cannot be read: nobody is let in by it", x)
			continue
		}
		s.ranges = append(s.ranges, p)
	}
}

func parseRange(x string) (netip.Prefix, error) {
	ip, bits, ok := strings.Cut(x, "/")
	if !ok {
		return netip.Prefix{}, fmt.Errorf("%q has no prefix length", x)
	}
	a, ok := parseIP(ip)
	if !ok {
		return netip.Prefix{}, fmt.Errorf("%q is not an address", ip)
	}
	p, err := netip.ParsePrefix(a.String() + "/" + bits)
	return p.Masked(), err
}

func (s *service) readAffinity(in *corev1.Service) {
	if in.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return
	}
	s.affinity = defaultAffinity
	c := in.Spec.SessionAffinityConfig
	if c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
		return
	}
	if t := *c.ClientIP.TimeoutSeconds; t < 1 || t > maxAffinity {
		s.complain(ReasonAffinity, "sessionAffinity timeout of %d s is not 1 to %d; %d is taken", t, maxAffinity, defaultAffinity)
	} else {
		s.affinity = uint32(t)
	}
}

func (s *service) readHealthPort(p int32) {
	if p < 1 || p > 65535 {
		s.complain(ReasonHealthPort, "healthCheckNodePort is %d; load balancers cannot ask which nodes have endpoints", p)
		return
	}
	s.healthPort = uint16(p)
}

// allowed returns the source ranges of one family without those that lie in
// another, and whether they limit anything. As with kube-proxy a range of all
// addresses, or none of the family, lets everybody in; a list with something
// unreadable and nothing left lets nobody.
func (s *service) allowed(f Family) ([]netip.Prefix, bool) {
	var out []netip.Prefix
	for _, p := range s.ranges {
		if familyOf(p.Addr()) != f {
			continue
		}
		if p.Bits() == 0 {
			return nil, false
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		return nil, s.badRanges
	}
	return disjoint(out), true
}

// disjoint sorts prefixes and drops each that lies in another: two prefixes
// either nest or have nothing in common.
func disjoint(ps []netip.Prefix) []netip.Prefix {
	slices.SortFunc(ps, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	out := ps[:0]
	for _, p := range ps {
		if n := len(out); n == 0 || !out[n-1].Contains(p.Addr()) {
			out = append(out, p)
		}
	}
	return out
}
