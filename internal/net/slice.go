package net

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unique"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// slice is what the model keeps of an EndpointSlice.
type slice struct {
	name  string
	owner Key // the Service that it belongs to
	ports []slicePort
	ends  []endpoint
	bad   []Finding
}

type slicePort struct {
	name  string
	proto Proto
	port  uint16
}

// endpoint is one address of a slice, in 40 bytes: there are tens of thousands.
type endpoint struct {
	addr  netip.Addr
	zones unique.Handle[string] // hinted zones, each between two newlines; zero: no hints
	is    trait
}

// trait is what is known of an endpoint.
type trait uint8

const (
	ready trait = 1 << iota
	serving
	terminating
	local     // on this node
	nodeHints // has hints for nodes
	hintsUs   // and this node is one
)

func (t trait) has(x trait) bool { return t&x == x }

// draining is what may be used when nothing is ready.
func (t trait) draining() bool { return !t.has(ready) && t.has(serving|terminating) }

// hinted tells whether the endpoint has hints for zones, and one for zone.
func (e endpoint) hinted(zone string) (has, here bool) {
	if e.zones == (unique.Handle[string]{}) {
		return false, false
	}
	return true, strings.Contains(e.zones.Value(), "\n"+zone+"\n")
}

// newSlice reads what matters of an EndpointSlice, or returns nil if it belongs
// to no Service or names hosts.
func newSlice(in *discoveryv1.EndpointSlice, node string) *slice {
	owner := in.Labels[discoveryv1.LabelServiceName]
	if owner == "" || (in.AddressType != discoveryv1.AddressTypeIPv4 && in.AddressType != discoveryv1.AddressTypeIPv6) {
		return nil
	}
	s := &slice{name: in.Name, owner: Key{in.Namespace, owner}}
	s.readPorts(in)
	s.ends = make([]endpoint, 0, len(in.Endpoints))
	for i := range in.Endpoints {
		s.readEndpoint(&in.Endpoints[i], in.AddressType, node)
	}
	return s
}

func (s *slice) complain(r Reason, format string, args ...any) {
	if len(s.bad) < maxFindings {
		s.bad = append(s.bad, Finding{r, "EndpointSlice " + s.name + ": " + fmt.Sprintf(format, args...)})
	}
}

func (s *slice) readPorts(in *discoveryv1.EndpointSlice) {
	for _, p := range in.Ports {
		if p.Port == nil || p.Name == nil {
			s.complain(ReasonSlicePort, "a port without a name or a number is left out")
			continue
		}
		sp := slicePort{name: *p.Name, proto: TCP}
		if p.Protocol != nil {
			var ok bool
			if sp.proto, ok = protoOf(*p.Protocol); !ok {
				s.complain(ReasonSlicePort, "port %q has the protocol %q, which is not known; it is left out", sp.name, *p.Protocol)
				continue
			}
		}
		if *p.Port < 1 || *p.Port > 65535 {
			s.complain(ReasonSlicePort, "port %q is %d; it is left out, a port is 1 to 65535", sp.name, *p.Port)
			continue
		}
		sp.port = uint16(*p.Port)
		s.ports = append(s.ports, sp)
	}
	s.ports = slices.Clip(s.ports)
}

func (s *slice) readEndpoint(in *discoveryv1.Endpoint, t discoveryv1.AddressType, node string) {
	if len(in.Addresses) == 0 {
		s.complain(ReasonEndpoint, "an endpoint without an address is left out")
		return
	}
	// Consumers use the first: all are the same endpoint.
	a, _ := parseIP(in.Addresses[0])
	if why := special(a); why != "" {
		s.complain(ReasonEndpoint, "endpoint %q %s; it is left out", in.Addresses[0], why)
		return
	}
	if a.Is4() != (t == discoveryv1.AddressTypeIPv4) {
		s.complain(ReasonEndpoint, "endpoint %q is not of the slice's type %s; it is left out", in.Addresses[0], t)
		return
	}
	e := endpoint{addr: a}
	set := func(on bool, x trait) {
		if on {
			e.is |= x
		}
	}
	c := in.Conditions
	set(c.Ready == nil || *c.Ready, ready)
	set(c.Serving == nil || *c.Serving, serving)
	set(c.Terminating != nil && *c.Terminating, terminating)
	set(node != "" && in.NodeName != nil && *in.NodeName == node, local)
	if h := in.Hints; h != nil {
		set(len(h.ForNodes) > 0, nodeHints)
		set(slices.ContainsFunc(h.ForNodes, func(n discoveryv1.ForNode) bool { return n.Name == node }), hintsUs)
		if len(h.ForZones) > 0 {
			zones := make([]string, len(h.ForZones))
			for i, z := range h.ForZones {
				zones[i] = z.Name
			}
			slices.Sort(zones)
			e.zones = unique.Make("\n" + strings.Join(zones, "\n") + "\n")
		}
	}
	s.ends = append(s.ends, e)
}
